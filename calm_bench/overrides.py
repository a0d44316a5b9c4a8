"""From YAML files and ``key=value`` text to a checked :mod:`calm_bench.config` description.

Layers are merged as plain data and validated once, whole: defaults, then a preset, then the file, then the
assignments of the command line. Every error names the full path of the key that caused it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from calm_bench.config import Experiment
from calm_bench.family_registry import FAMILIES, SECTIONS
from calm_bench.file_signs import HEAD_BYTES, misread_as, not_utf8
from calm_bench.problems import KIND, MOST_SHOWN, ConfigurationError, check_path, explain, path_segments

__all__ = ["ConfigurationError", "apply_settings", "assign", "load_yaml", "merge", "parse_assignment", "validate"]

M = TypeVar("M", bound=BaseModel)

BUDGETS = ("num_steps", "num_tokens", "num_flops")
"""Keys of a training of which one is set: setting one in a later layer unsets those of earlier layers."""

MODEL = "model"
"""A mapping with settings of several families: a later layer that changes its ``kind`` drops those of the others."""
HEAD = "head"
"""A mapping whose fields depend on its ``kind``: a later layer that changes it starts from the new kind's defaults."""


MERGE = "tag:yaml.org,2002:merge"

YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, RecursionError)
"""What PyYAML raises of a text: by itself, by what reads a value (``2024-02-30``), and of parts in parts."""


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of its 1.2 core schema, with merge keys (``<<: *anchor``), without duplicate keys.

    PyYAML follows YAML 1.1, where ``1e-3`` is text, ``no`` is false and ``1:30`` is ninety.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML's, whose readers of values (``!!int x``) raise errors that name no line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the base class's form)


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16) if "0x" in text else int(text)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, yaml.Mark] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE:
            continue  # an own key wins over a merged one, so it may stand in both
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, dict | list):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                f"the key {key!r} of line {seen[key].line + 1}", seen[key], "stands here again", key_node.start_mark
            )
        seen[key] = key_node.start_mark
    return loader.construct_mapping(node, deep=True)


_Loader.add_implicit_resolver(MERGE, re.compile("^<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def yaml_problem(error: Exception, text: str | bytes = "") -> str:
    """What one of :data:`YAML_ERRORS` says of ``text``, as the end of a message, with the line where it is known."""
    if isinstance(error, RecursionError):
        return "lists or mappings in each other without end"
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line = (before.count("\n") if isinstance(before, str) else before.count(b"\n")) + 1
        return f"line {line}: the character #x{error.character:02x} is none that YAML allows"
    return _STREAM.sub(" in ", str(error))


_STREAM = re.compile(r'\s*in "<(?:unicode|byte) string>", ')


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigurationError: unreadable, not UTF-8, not YAML, a key given twice, or something other than a mapping.
    """
    try:
        raw = path.read_bytes()
        if (what := misread_as(raw[:HEAD_BYTES])) is not None:
            raise ConfigurationError(f"{path} is {what}")
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is {not_utf8(raw, error)}") from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except YAML_ERRORS as error:
        raise ConfigurationError(f"{path} is not valid YAML: {yaml_problem(error, text)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigurationError(f"{path} must hold keys and values (such as 'name: my-study') at its top level")
    return data


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"model.chunk_size=2"`` as ``("model.chunk_size", 2)``; the value is read as YAML.

    Raises:
        ConfigurationError: no ``=``, an empty key, or a value that is not YAML.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigurationError(f"{text!r} is not of the form key=value, such as model.chunk_size=2")
    try:
        return path, yaml.load(value, Loader=_Loader)
    except YAML_ERRORS as error:
        shown = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}..."
        raise ConfigurationError(
            f"the value of {path} is not valid YAML: {shown!r} ({yaml_problem(error, value)})"
        ) from error


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """``lower`` with the keys of ``upper`` written over it; mappings merge, lists and scalars replace."""
    merged = copy.deepcopy(dict(lower))
    if any(upper.get(name) is not None for name in BUDGETS):
        merged.update({name: None for name in BUDGETS if name in merged})
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict) and not _changes_kind(key, below, value):
            merged[key] = merge(_of_family(below, value.get(KIND)) if key == MODEL else below, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def assign(data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with values set by dotted path; ``a.0.b`` and ``a[0].b`` reach into lists.

    All of ``settings`` is one layer: two budgets of one training contradict each other and both stay, to be refused
    by validation.

    Raises:
        ConfigurationError: a path that leads through something that is neither a mapping nor a list.
    """
    changed = copy.deepcopy(dict(data))
    split = {path: path_segments(path) for path in settings}
    for path, segments in split.items():
        if segments[-1] in BUDGETS and settings[path] is not None:
            training = _descend(changed, segments[:-1], path)
            if isinstance(training, dict):
                training.update({name: None for name in BUDGETS if name in training})
        if segments == [MODEL, KIND] and isinstance(changed.get(MODEL), dict):
            changed[MODEL] = _of_family(changed[MODEL], settings[path])
        if segments[-2:] == [HEAD, KIND]:
            head = _descend(changed, segments[:-1], path)
            if isinstance(head, dict) and _changes_kind(HEAD, head, {KIND: settings[path]}):
                head.clear()
    for path, segments in split.items():
        parent, last, value = _descend(changed, segments[:-1], path), segments[-1], copy.deepcopy(settings[path])
        if isinstance(parent, list):
            parent[_index(parent, last, path)] = value
        else:
            parent.update(merge({last: parent.get(last)}, {last: value}))
    return changed


def _of_family(model: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Settings of a model without those of earlier layers that the family ``kind`` of a later one does not have."""
    if not isinstance(kind, str) or kind not in FAMILIES.names():
        return dict(model)
    own = FAMILIES.get(kind).sections
    return {name: value for name, value in model.items() if name not in SECTIONS or name in own}


def _changes_kind(key: str, below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return key == HEAD and KIND in below and above.get(KIND, below[KIND]) != below[KIND]


def validate(model: type[M], data: Mapping[str, Any], origin: str = "") -> M:
    """``data`` as a frozen ``model``.

    Args:
        origin: what is being read, to begin the message with (a file, a trial).

    Raises:
        ConfigurationError: with one line for each problem: the key's path, what is wrong, the nearest valid name.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        lines = explain(model, error)
    head = f"{origin}: " if origin else ""
    raise ConfigurationError(head + (lines[0] if len(lines) == 1 else "\n  " + "\n  ".join(lines)))


def apply_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """``experiment`` with values set by dotted path, checked as a whole again.

    Raises:
        ConfigurationError: an unknown key (with the nearest valid one) or an impossible combination.
    """
    for path in settings:
        check_path(Experiment, path)
    return validate(Experiment, assign(experiment.model_dump(mode="json"), settings))


def _descend(data: dict[str, Any], segments: Sequence[str], path: str) -> Any:
    """The mapping or list at ``segments``, with missing mappings made on the way."""
    here: Any = data
    for depth, segment in enumerate(segments):
        if isinstance(here, list):
            here = here[_index(here, segment, path)]
        else:
            if here.get(segment) is None:
                here[segment] = {}
            here = here[segment]
        if not isinstance(here, dict | list):
            where = ".".join(segments[: depth + 1])
            raise ConfigurationError(f"unknown key {path!r}: {where} is {here!r} and has no parts")
    return here


def _index(items: list[Any], segment: str, path: str) -> int:
    if not segment.isdigit():
        raise ConfigurationError(f"{path!r}: {segment!r} stands where the number of a list item is expected")
    if int(segment) >= len(items):
        raise ConfigurationError(f"{path!r}: the list has {len(items)} items, counted from 0")
    return int(segment)
