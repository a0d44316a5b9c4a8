"""Tasks of lm-eval by name: those that ship here, files of one's own, and those of lm-eval."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import UnknownName

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

LOCAL_DATA = "@"
"""``TASK@FOLDER`` takes the task's data from a folder."""
_SURELY_MEANT = 0.8
"""Likeness of names from which a misspelt name is taken to mean one of our own tasks."""


class MissingData(ConfigurationError):
    """A task whose data set is neither here nor to be had; says how to provide it."""


def load_tasks(specifications: Sequence[str], metadata: Mapping[str, Any]) -> tuple[dict[str, Any], TaskManager]:
    """What ``lm_eval.evaluate`` takes for tasks, and the manager that made it.

    Args:
        specifications: names of tasks, groups or tags, paths of task files, each with ``@FOLDER`` where the data set is
            to be read from there. Only names that are not ours make lm-eval index its 14.7 thousand tasks.
        metadata: given to every task.

    Raises:
        UnknownName: no such task; names the nearest.
        MissingData: its data set cannot be loaded.
    """
    from lm_eval.tasks import TaskManager

    from evals.tasks import TASKS_FOLDER, shipped_tasks

    names = [specification.partition(LOCAL_DATA)[0] for specification in specifications]
    own = shipped_tasks()
    foreign = [name for name in names if name not in own and not _is_file(name)]
    for name in foreign:
        near = difflib.get_close_matches(name, own, n=1, cutoff=_SURELY_MEANT)
        if near:
            raise UnknownName(f"unknown task {name!r}; did you mean {near[0]!r}?")
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=bool(foreign), metadata=dict(metadata))
    for name in foreign:
        if not manager.match_tasks([name]):
            raise UnknownName(f"unknown task {name!r}{_nearest(name, manager.all_tasks)}")
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for specification in specifications:
        for part, content in _load(specification, manager).items():
            loaded[part] |= content
    return loaded, manager


def _load(specification: str, manager: TaskManager) -> dict[str, Any]:
    name, _, folder = specification.partition(LOCAL_DATA)
    try:
        return dict(manager.load([_with_data(name, folder, manager) if folder else name]))
    except Exception as error:  # data set libraries and hubs raise a dozen unrelated kinds
        if isinstance(error, ConfigurationError) or not _is_about_data(error):
            raise
        raise MissingData(
            f"task {name} needs {_data_set(name, manager)}, which is neither cached here nor can be downloaded "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). On a machine with a network, download it "
            f"with `hf download --repo-type dataset NAME --local-dir FOLDER`, copy the folder here, and name it: "
            f"--tasks {name}{LOCAL_DATA}FOLDER. A copied cache does too: set HF_HOME to it"
        ) from error


def _with_data(name: str, folder: str, manager: TaskManager) -> dict[str, Any]:
    """The task's configuration, reading its data set from ``folder``."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if not Path(folder).expanduser().is_dir():
        raise ConfigurationError(f"--tasks {name}{LOCAL_DATA}{folder}: there is no folder {folder}")
    path = _file(name, manager)
    configuration = load_yaml(path) if path is not None else {}
    if not isinstance(configuration.get("task"), str) or "dataset_path" not in configuration:
        raise ConfigurationError(f"{name} is not a single task with a data set, so it cannot be given a folder")
    configuration.pop("dataset_name", None)
    return {**configuration, "dataset_path": str(Path(folder).expanduser().absolute())}


def _data_set(name: str, manager: TaskManager) -> str:
    from lm_eval.tasks._yaml_loader import load_yaml

    path = _file(name, manager)
    configuration = load_yaml(path, resolve_func=False) if path is not None else {}
    found = configuration.get("dataset_path")
    if found is None:
        return "a data set"
    return f"the data set {found}" + (
        f" ({configuration['dataset_name']})" if configuration.get("dataset_name") else ""
    )


def _file(name: str, manager: TaskManager) -> Path | None:
    if _is_file(name):
        return Path(name)
    entry = manager.task_index.get(name)
    return entry.yaml_path if entry is not None else None


def _is_file(name: str) -> bool:
    return Path(name).suffix == ".yaml" and Path(name).is_file()


def _is_about_data(error: BaseException) -> bool:
    """Whether it comes from finding or fetching a data set."""
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(modules & {"datasets", "huggingface_hub", "requests", "httpx", "httpx2"})


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return "; calm-bench lm-eval ls tasks lists them, and a path of a task file works too"
