"""Task files of lm-eval read as data: what they say, what they include, and where their questions and functions are.

Nothing here imports lm-eval or runs a task's functions, so that a plan can be made from it in no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from calm_bench.file_signs import HEAD_BYTES, misread_as
from calm_bench.overrides import YAML_ERRORS, ConfigurationError, yaml_problem
from calm_bench.registry import did_you_mean
from calm_bench.source_digest import module_file

LOCAL_DATA = "@"
"""``TASK@FOLDER`` takes the task's data from a folder."""
SUFFIXES = (".yaml", ".yml")
FUNCTION = "!function"
"""YAML's tag of a function's name."""


class TaskFileError(ConfigurationError):
    """A task that cannot be read as written; the message names the file, the field or question, and the way out."""


class TaskName(NamedTuple):
    """A task as people write it: ``NAME``, ``FILE.yaml``, either with ``@FOLDER`` behind it."""

    name: str
    file: Path | None
    """The task file, where the name is the path of one."""
    folder: Path | None
    """Where the task's data are read from instead."""


class Function(NamedTuple):
    """A function that a task file names."""

    name: str
    """``module.function``, the module beside the task file or importable."""
    folder: Path
    """Folder of the file that names it."""

    @property
    def file(self) -> Path | None:
        """The file of its module where it is one's own: beside the task file, where lm-eval looks first whatever it is
        called, or else the one that Python finds."""
        module = self.name.rpartition(".")[0]
        beside = self.folder / f"{module.replace('.', '/')}.py"
        return beside.resolve() if beside.is_file() else module_file(module, self.folder)


@dataclass(frozen=True)
class TaskFile:
    """A task file with everything that it includes."""

    path: Path
    settings: Mapping[str, Any]
    """As lm-eval merges them; functions as :class:`Function`."""
    files: tuple[Path, ...]
    """The file and those that it includes."""

    @property
    def name(self) -> str:
        """Name of the task, or of the group."""
        return str(self.settings["group"] if self.is_group else self.settings["task"])

    @property
    def is_group(self) -> bool:
        """Whether the file lists tasks instead of describing one."""
        return "group" in self.settings and not isinstance(self.settings.get("task"), str)

    @property
    def members(self) -> list[str]:
        """Names of a group's tasks."""
        listed = self.settings.get("task") or []
        names = [item if isinstance(item, str) else (item.get("task") or item.get("group")) for item in listed]
        return [str(name) for name in names]

    @property
    def functions(self) -> list[Function]:
        """Those that any setting names, in order."""
        return list(_functions(self.settings))


def parse_task_name(text: str) -> TaskName:
    """Take ``text`` apart; ``@`` may be part of a task file's path.

    Raises:
        TaskFileError: it is written like the path of a file that is not there.
    """
    cuts = [index for index, character in enumerate(text) if character == LOCAL_DATA]
    for cut in (None, *cuts):
        name = text[:cut]
        path = Path(name).expanduser()
        if path.suffix.lower() in SUFFIXES and path.is_file():
            return TaskName(name, path, None if cut is None else Path(text[cut + 1 :]).expanduser())
    name, _, folder = text.partition(LOCAL_DATA)
    if "/" in name or Path(name).suffix.lower() in SUFFIXES:
        raise TaskFileError(f"there is no task file {text!r} (in {Path.cwd()})")
    return TaskName(name, None, Path(folder).expanduser() if folder else None)


def read_task_file(path: Path) -> TaskFile:
    """The task file ``path`` with what it includes.

    Raises:
        TaskFileError: it cannot be read, is empty or no YAML, or describes neither a task nor a group.
    """
    files: dict[Path, None] = {}
    settings = _merged(path, files)
    if not any(key in settings for key in ("task", "group")):
        raise TaskFileError(
            f"{path} has no key 'task', which names the task{did_you_mean('task', list(map(str, settings)))}"
        )
    if "group" not in settings and not (isinstance(settings["task"], str) and settings["task"].strip()):
        raise TaskFileError(f"{path}: task must be a name, found {settings['task']!r}")
    if "group" in settings and not isinstance(settings["group"], str):
        raise TaskFileError(f"{path}: group must be a name, found {settings['group']!r}")
    found = TaskFile(path, settings, tuple(files))
    if found.is_group and not (isinstance(settings.get("task"), list) and settings["task"]):
        raise TaskFileError(f"{path}: the group {found.name} lists no tasks (task: [first, second])")
    if found.is_group and not all(isinstance(item, str) or _names_one(item) for item in settings["task"]):
        raise TaskFileError(
            f"{path}: the group {found.name} lists tasks by their names (task: [first, second]), found "
            f"{settings['task']!r}"
        )
    if found.is_group and found.name in found.members:
        raise TaskFileError(f"{path}: the group {found.name} lists itself")
    return found


def _names_one(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("task") or item.get("group"), str)


def _merged(path: Path, files: dict[Path, None], including: tuple[Path, ...] = ()) -> dict[str, Any]:
    own = _read(path, including)
    files[path.resolve()] = None
    included = own.pop("include", [])
    merged: dict[str, Any] = {}
    listed = included if isinstance(included, list) else [included]
    if not all(isinstance(other, str) and other for other in listed):
        raise TaskFileError(f"{path}: include must name a file, or a list of files, found {included!r}")
    for other in listed:
        below = _merged(path.resolve().parent / str(other), files, (*including, path))
        below.pop("task_list", None)
        merged |= below
    return merged | own


def _read(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    said_by = f" (included by {including[-1]})" if including else ""
    if path in including:
        raise TaskFileError(f"{path} includes itself, through {' and '.join(map(str, including))}")
    try:
        if path.exists() and not path.is_file():
            raise TaskFileError(f"{path}{said_by} is no file")
        raw = path.read_bytes()
        # YAML may be UTF-16 with a byte order mark; the rest of what is misread cannot be meant.
        wrong = None if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else misread_as(raw[:HEAD_BYTES])
        if wrong is not None:
            raise TaskFileError(f"{path}{said_by} is {wrong}")
    except OSError as error:
        raise TaskFileError(f"cannot read {path}{said_by}: {error.strerror or error}") from error
    try:
        # As lm-eval: functions lie beside the file itself, wherever a link to it is.
        data = _parsed(raw, path.resolve().parent)
    except YAML_ERRORS as error:
        raise TaskFileError(f"{path}{said_by} is not valid YAML: {yaml_problem(error, raw)}") from error
    if data is None:
        raise TaskFileError(
            f"{path}{said_by} is empty: a task needs task, dataset_path, test_split, doc_to_text and doc_to_target"
        )
    if not isinstance(data, dict):
        raise TaskFileError(f"{path}{said_by} must hold keys and values (such as 'task: mine') at its top level")
    return data


def _parsed(raw: bytes, folder: Path) -> Any:
    """What the YAML ``raw`` of a file in ``folder`` says."""

    class Loader(yaml.SafeLoader):
        """Functions are named and not imported; a key that is given twice is an error, as in studies."""

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, TypeError) as error:
                raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            # Before merge keys add those of others. Some files of lm-eval's own have keys twice.
            own = {"site-packages", "dist-packages"}.isdisjoint(folder.parts)
            seen: set[str] = set()
            for key, _ in node.value:
                if own and isinstance(key, yaml.ScalarNode) and key.value in seen - {"<<"}:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(str(key.value))
            super().flatten_mapping(node)

    Loader.add_constructor(FUNCTION, lambda loader, node: Function(_scalar(loader, node), folder))
    return yaml.load(raw, Loader=Loader)


def _scalar(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _functions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _functions(inner)
