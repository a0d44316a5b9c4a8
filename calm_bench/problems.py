"""What is wrong with a configuration, in the words of the file it came from.

Pydantic knows what is wrong; a person needs the key's path as written in YAML and the name that was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

UNION_MEMBER = re.compile(r"[\[\]]|^(?:int|float|str|bool|none|constrained-.*)$")
"""Names that pydantic adds to an error's location for the member of a union that it tried."""


class ConfigurationError(ValueError):
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
        inner = _model_in(field.annotation)
        if inner is not None and not _is_collection(field.annotation):
            yield from field_paths(inner, f"{prefix}{name}.")


def check_path(model: type[BaseModel], path: str) -> None:
    """Raise :class:`ConfigurationError` unless the dotted ``path`` names a field of ``model``; says the nearest one."""
    here: type[BaseModel] | None = model
    walked: list[str] = []
    for segment in path_segments(path):
        if here is None:
            raise ConfigurationError(f"unknown key {path!r}: {'.'.join(walked)} has no parts")
        if segment not in here.model_fields:
            raise ConfigurationError(f"unknown key {path!r}{_nearest(model, here, walked, path.split('.')[-1])}")
        walked.append(segment)
        annotation = here.model_fields[segment].annotation
        if _is_collection(annotation):
            return  # list items and free-form mappings: validation decides
        here = _model_in(annotation)


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
        else:
            message = detail["msg"].removeprefix("Value error, ")
            given = detail.get("input")
            if detail["type"] != "value_error" and isinstance(given, str | int | float | bool | None):
                message = message[0].lower() + message[1:]
                found[path] = f", found {given!r}"
        problems.setdefault(path, []).append(message)
    lines = {path: " or ".join(messages) + found.get(path, "") for path, messages in problems.items()}
    return [f"{path}: {line}" if path else line for path, line in lines.items()]


def _locate(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], type[BaseModel]]:
    """The parts of a path as written, and the innermost model on the way to its last part."""
    written: list[str] = []
    here: type[BaseModel] | None = model
    holder = model
    for position, segment in enumerate(location):
        if isinstance(segment, int):
            written.append(f"[{segment}]")
        elif here is not None and (segment in here.model_fields or position == len(location) - 1):
            written.append(f".{segment}")
            holder = here
            field = here.model_fields.get(segment)
            here = _model_in(field.annotation) if field is not None else None
        elif here is None and not UNION_MEMBER.search(segment):
            written.append(f".{segment}")
    return written, holder


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``Head``, ``Head | None``, ``tuple[Head, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = [_model_in(part) for part in getattr(annotation, "__args__", ())]
    return next((part for part in inside if part is not None), None)


def _is_collection(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict)


def _nearest(root: type[BaseModel], holder: type[BaseModel], walked: Sequence[str], key: str) -> str:
    """``; did you mean 'x'?`` with the field that ``key`` most likely stands for, else the fields at that place.

    Looked for beside the key first, then under the same name elsewhere, then under a similar one elsewhere.
    """
    prefix = "".join(part if part.startswith("[") else f".{part}" for part in walked).removeprefix(".")
    fields = list(holder.model_fields)
    beside = difflib.get_close_matches(key, fields, n=1, cutoff=0.6) or [name for name in fields if key in name]
    if beside:
        return f"; did you mean {f'{prefix}.{beside[0]}'.removeprefix('.')!r}?"
    everywhere = list(field_paths(root))
    names = {path.rpartition(".")[2] for path in everywhere}
    for name in difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.8):
        paths = [path for path in everywhere if path.rpartition(".")[2] == name]
        return "; did you mean " + " or ".join(map(repr, paths)) + "?"
    return f"; known {f'in {prefix}' if prefix else 'here'}: {', '.join(fields)}"
