"""What is wrong with a configuration, in the words of the file it came from.

Pydantic knows what is wrong; a person needs the key's path as written in YAML and the name that was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from calm_bench.errors import UsageError
from calm_bench.list_advice import as_list
from calm_bench.registry import did_you_mean

KIND = "kind"
"""The field that says which of several models a mapping describes."""

UNION_MEMBER = re.compile(r"[\[\]]|^(?:int|float|str|bool|none|constrained-.*)$")
"""Names that pydantic adds to an error's location for the member of a union that it tried."""


MOST_SHOWN = 200
"""Characters of a value that a message repeats."""


class ConfigurationError(UsageError, ValueError):
    """A description that cannot be used; the message names the key and what to do."""


def path_segments(path: str) -> list[str]:
    """``search.parameters[0].values`` as ``["search", "parameters", "0", "values"]``.

    Raises:
        ConfigurationError: an empty part, as in ``model..head``.
    """
    segments = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    if not all(segments):
        raise ConfigurationError(f"{path!r} is not a path such as model.chunk_size")
    return segments


def field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields of ``model`` and of the models inside it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if not _is_collection(field.annotation):
            members = _models_in(field.annotation)
            yield from dict.fromkeys(path for member in members for path in field_paths(member, f"{prefix}{name}."))


def check_path(model: type[BaseModel], path: str) -> None:
    """Raise :class:`ConfigurationError` unless the dotted ``path`` names a field of ``model``; says the nearest one.

    Where one of several models may stand, such as a head, a field of any of them will do: validation decides.
    """
    here: tuple[type[BaseModel], ...] = (model,)
    walked: list[str] = []
    for segment in path_segments(path):
        if not here:
            raise ConfigurationError(f"unknown key {path!r}: {'.'.join(walked)} has no parts")
        annotations = [member.model_fields[segment].annotation for member in here if segment in member.model_fields]
        if not annotations:
            raise ConfigurationError(f"unknown key {path!r}{_nearest(model, here, walked, path.split('.')[-1])}")
        walked.append(segment)
        if any(map(_is_collection, annotations)):
            return  # list items and free-form mappings: validation decides
        here = tuple(inner for annotation in annotations for inner in _models_in(annotation))


def explain(model: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each key that ``error`` complains about."""
    problems: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for detail in error.errors():
        written, holder = _locate(model, detail["loc"])
        path = "".join(written).removeprefix(".")
        if detail["type"] == "extra_forbidden":
            walked = [part.removeprefix(".") for part in written[:-1]]
            message = f"unknown key{_nearest(model, holder, walked, str(detail['loc'][-1]))}"
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] in ("tuple_type", "list_type"):
            message = "should be a list"
            found[path] = _list_wanted(path, _fields(holder, str(detail["loc"][-1])), detail.get("input"))
        elif detail["type"] == "union_tag_invalid":
            path = f"{path}.{KIND}"
            kinds = [_kind(member) for member in _models_at(model, [str(part) for part in detail["loc"]])]
            message = f"there is no {detail['ctx']['tag']!r}{did_you_mean(str(detail['ctx']['tag']), kinds)}"
        else:
            message = detail["msg"].removeprefix("Value error, ")
            given = detail.get("input")
            if detail["type"] != "value_error" and isinstance(given, str | int | float | bool | None):
                message = message[0].lower() + message[1:]
                found[path] = f", found {_short(given)}" + _sweep(path, given, detail["type"])
        problems.setdefault(path, []).append(message)
    lines = {path: " or ".join(messages) + found.get(path, "") for path, messages in problems.items()}
    return [f"{path}: {line}" if path else line for path, line in lines.items()]


def _list_wanted(path: str, fields: Sequence[FieldInfo], given: object) -> str:
    """What stands where a list should, and how to write that."""
    is_of_mappings = any(_models_in(field.annotation) for field in fields)
    is_of_text = any(str in getattr(field.annotation, "__args__", ()) for field in fields)
    shown = f", found {_short(given)}" if isinstance(given, str | int | float | bool | None) else ""
    return shown + as_list(path, given, is_of_text, is_of_mappings)


def _short(given: object) -> str:
    """``given`` as one would write it, cut where it is long."""
    shown = repr(given[: MOST_SHOWN + 1] if isinstance(given, str) else given)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


def _sweep(path: str, given: object, problem: str) -> str:
    """How to try several values, where one number was wanted and several are given by comma."""
    if not (isinstance(given, str) and "," in given and problem.endswith("_parsing")):
        return ""
    values = ", ".join(part.strip() for part in given.split(","))
    return f"; several values are searched over: 'search.parameters=[{{name: {path}, values: [{values}]}}]'"


def _locate(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], tuple[type[BaseModel], ...]]:
    """The parts of a path as written, and the innermost model (or the choice of models) on the way to its last part."""
    written: list[str] = []
    here: tuple[type[BaseModel], ...] = (model,)
    holder = here
    for position, segment in enumerate(location):
        chosen = tuple(member for member in here if len(here) > 1 and _kind(member) == segment)
        if isinstance(segment, int):
            written.append(f"[{segment}]")
        elif chosen:
            here = chosen
        elif here and (_fields(here, segment) or position == len(location) - 1):
            written.append(f".{segment}")
            holder = here
            here = tuple(inner for field in _fields(here, segment) for inner in _models_in(field.annotation))
        elif not here and not UNION_MEMBER.search(segment):
            written.append(f".{segment}")
    return written, holder


def _models_at(root: type[BaseModel], walked: Sequence[str]) -> tuple[type[BaseModel], ...]:
    """The models that may stand at a path of field names."""
    here: tuple[type[BaseModel], ...] = (root,)
    for segment in walked:
        here = tuple(inner for field in _fields(here, segment) for inner in _models_in(field.annotation))
    return here


def _fields(models: Sequence[type[BaseModel]], name: str) -> list[FieldInfo]:
    return [member.model_fields[name] for member in models if name in member.model_fields]


def _models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The models in an annotation such as ``Training``, ``Head | None``, ``tuple[Parameter, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(model for part in getattr(annotation, "__args__", ()) for model in _models_in(part))


def _kind(model: type[BaseModel]) -> str:
    """The value of ``kind`` that chooses this model among others, or nothing."""
    return str(model.model_fields[KIND].default) if KIND in model.model_fields else ""


def _is_collection(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict)


def _nearest(root: type[BaseModel], holders: Sequence[type[BaseModel]], walked: Sequence[str], key: str) -> str:
    """``; did you mean 'x'?`` with the field that ``key`` most likely stands for, else the fields at that place.

    Looked for in the models of another kind at that place, beside the key, then under the same name elsewhere, then
    under a similar one elsewhere.
    """
    prefix = "".join(part if part.startswith("[") else f".{part}" for part in walked).removeprefix(".")
    kinds = [_kind(member) for member in _models_at(root, walked) if key in member.model_fields]
    if kinds:
        return f"; it belongs to {prefix}.{KIND}=" + " or ".join(kinds)
    fields = list(dict.fromkeys(name for holder in holders for name in holder.model_fields))
    beside = difflib.get_close_matches(key, fields, n=1, cutoff=0.6) or [name for name in fields if key in name]
    if beside:
        return f"; did you mean {f'{prefix}.{beside[0]}'.removeprefix('.')!r}?"
    everywhere = list(field_paths(root))
    names = {path.rpartition(".")[2] for path in everywhere}
    for name in difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.8):
        paths = [path for path in everywhere if path.rpartition(".")[2] == name]
        return "; did you mean " + " or ".join(map(repr, paths)) + "?"
    return f"; known {f'in {prefix}' if prefix else 'here'}: {', '.join(fields)}"
