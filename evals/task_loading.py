"""Tasks of lm-eval by name: those that ship here, files of one's own, and those of lm-eval."""

from __future__ import annotations

import difflib
import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.hub_commit import COMMIT
from calm_bench.overrides import ConfigurationError
from calm_bench.own_code import refresh_bytecode
from calm_bench.registry import UnknownName
from evals.task_files import LOCAL_DATA, TaskFile, TaskFileError, TaskName, parse_task_name, read_task_file

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from evals.answer_length import AnswerLimit

_SURELY_MEANT = 0.8
"""Likeness of names from which a misspelt name is taken to mean one of our own tasks."""


class MissingData(ConfigurationError):
    """A task whose data set is neither here nor to be had; says how to provide it."""


def load_tasks(
    specifications: Sequence[str],
    metadata: Mapping[str, Any],
    limit: int | None = None,
    longest: AnswerLimit | None = None,
    commits: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], TaskManager]:
    """What ``lm_eval.evaluate`` takes for tasks, and the manager that made it. Their questions have been looked at.

    Args:
        specifications: names of tasks, groups or tags, paths of task files, each with ``@FOLDER`` where the data set is
            to be read from there. Only names that are not ours make lm-eval index its 14.7 thousand tasks.
        metadata: given to every task.
        limit: questions of each task that will be asked.
        longest: continuations that can be scored, where that is known.
        commits: by the names of single tasks, those of the data sets of the hub that they are to read; others are
            the newest that can be had.

    Raises:
        UnknownName: no such task; names the nearest.
        MissingData: its data set cannot be loaded, or not at its commit.
        TaskFileError: a task file or a question that cannot be used, or two tasks of one name.
    """
    from evals.data_caches import transformed_anew
    from evals.questions import check_questions

    logging.getLogger("lm_eval.api.task").addFilter(_is_about_tasks)
    named = [parse_task_name(specification) for specification in dict.fromkeys(specifications)]
    files = {name: read_task_file(name.file) for name in named if name.file is not None}
    wanted = dict(commits or {})
    manager = _manager(named, files, metadata, wanted)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    sources: dict[str, TaskName] = {}
    with transformed_anew():
        for name in named:
            for part, content in _load(name, files.get(name), manager, wanted).items():
                if part == "tasks":
                    for task, made in content.items():
                        _note_source(sources, task, name)
                        _check_commit(task, made, wanted.get(task))
                        check_questions(made, name.name, limit, longest)
                loaded[part] |= content
    return loaded, manager


def _is_about_tasks(record: logging.LogRecord) -> bool:
    """False of lm-eval's advice on an option of its own command, which it gives for every task with a function as data
    set: ours among them, and other commands have no such option."""
    return "`--metadata`" not in record.getMessage()


def check_tasks(
    specifications: Sequence[str],
    limit: int | None = None,
    longest: Callable[[], AnswerLimit | None] = lambda: None,
) -> None:
    """Refuse tasks that :func:`load_tasks` would refuse, or that cannot be scored; those that ship here are not loaded
    for it.

    Args:
        limit, longest: as of :func:`load_tasks`; ``longest`` is asked for only where tasks are loaded.

    Raises:
        UnknownName, MissingData, TaskFileError: as :func:`load_tasks`.
    """
    from evals.tasks import shipped_tasks

    if any(specification not in shipped_tasks() for specification in specifications):
        from evals.rehearsal import rehearse

        loaded, _ = load_tasks(specifications, {}, limit, longest())
        rehearse({name: task for name, task in loaded["tasks"].items() if name not in shipped_tasks()}, limit)


def _manager(
    named: Sequence[TaskName],
    files: Mapping[TaskName, TaskFile],
    metadata: Mapping[str, Any],
    commits: Mapping[str, str],
) -> TaskManager:
    from lm_eval.tasks import TaskManager

    from evals.lm_eval_tasks import lm_eval_index, tasks_named
    from evals.questions import WHERE
    from evals.task_identity import group_members
    from evals.tasks import TASKS_FOLDER, shipped_tasks

    own = shipped_tasks()
    foreign = [name.name for name in named if name.file is None and name.name not in own]
    for name in foreign:
        near = difflib.get_close_matches(name, own, n=1, cutoff=_SURELY_MEANT)
        if near:
            raise UnknownName(f"unknown task {name!r}; did you mean {near[0]!r}?")
    groups = [file for file in files.values() if file.is_group]
    here = {*own, *(member.name for group in groups for member in group_members(group))}
    elsewhere = [(group, member) for group in groups for member in group.members if member not in here]
    for group, member in elsewhere:
        if difflib.get_close_matches(member, here, n=1, cutoff=_SURELY_MEANT):
            # Before all of lm-eval's tasks are looked through for it.
            raise _no_member(group, member, sorted(here))
    manager = TaskManager(
        include_path=[str(TASKS_FOLDER), *dict.fromkeys(str(group.path.parent) for group in groups)],
        include_defaults=False,
        metadata=dict(metadata),
    )
    if foreign or elsewhere:
        for name, entry in lm_eval_index().items():
            manager.task_index.setdefault(name, entry)
    known = list(manager.task_index)
    for name in foreign:
        if name not in manager.task_index:
            raise UnknownName(f"unknown task {name!r}{_nearest(name, known)}")
    for name in (*foreign, *(member for _, member in elsewhere)):
        found = tasks_named(name)
        for member, path in {} if found is None else found.files.items():
            if member in commits:
                settings = _settings_of(read_task_file(path), None, commits[member])
                # lm-eval's own task, whose questions are not for this project to judge.
                settings = {key: value for key, value in settings.items() if key not in ("class", WHERE)}
                manager.task_index[member] = replace(manager.task_index[member], yaml_path=None, cfg=settings)
    for group in groups:
        for member in group.members:
            if member not in manager.task_index:
                raise _no_member(group, member, known)
        for task in group_members(group):
            if not task.is_group:
                # As a file that is named itself: its data beside it, its questions looked at.
                entry = manager.task_index[task.name]
                manager.task_index[task.name] = replace(
                    entry, yaml_path=None, cfg=_settings_of(task, None, commits.get(task.name))
                )
    return manager


def _no_member(group: TaskFile, member: str, known: Sequence[str]) -> TaskFileError:
    return TaskFileError(
        f"{group.path}: the group {group.name} lists {member!r}, which is no task of a file in {group.path.parent} nor "
        f"of lm-eval{_nearest(member, known)}"
    )


def _note_source(sources: dict[str, TaskName], task: str, name: TaskName) -> None:
    other = sources.setdefault(task, name)
    # Groups of lm-eval may have tasks in common.
    if other != name and (other.file is not None or name.file is not None):
        raise TaskFileError(
            f"{other.name} and {name.name} both are the task {task!r}, so one score would stand for the other: give "
            f"each file a name of its own (its key 'task')"
        )


def _load(name: TaskName, file: TaskFile | None, manager: TaskManager, commits: Mapping[str, str]) -> dict[str, Any]:
    from evals.task_data import LocalData, remote_files

    try:
        if file is not None and file.is_group:
            if name.folder is not None:
                raise TaskFileError(f"{file.path} is a group of tasks, so it cannot be given a folder: name its tasks")
            return dict(manager.load([file.name]))
        if file is not None:
            return dict(manager.load([_settings_of(file, name.folder, commits.get(file.name))]))
        return dict(manager.load([name.name if name.folder is None else _with_data(name, manager)]))
    except Exception as error:  # data set libraries and hubs raise a dozen unrelated kinds
        if isinstance(error, ConfigurationError):
            raise
        if not _is_about_data(error):
            if file is None:
                raise
            if (broken := LocalData(file, name.folder).broken_file()) is not None:
                raise TaskFileError(f"{file.path}: its data cannot be read: {broken}") from error
            raise TaskFileError(f"{file.path} cannot be used ({type(error).__name__}: {error})") from error
        shown = name.name
        if (unusable := _unusable_cache()) is not None:
            raise MissingData(
                f"task {shown} needs {_data_set(name, file, manager)}, and the folder in which data sets are prepared "
                f"cannot be used ({unusable}): set HF_DATASETS_CACHE to one that can be written"
            ) from error
        if file is not None and (data := LocalData(file, name.folder)).is_complete:
            raise TaskFileError(f"{file.path}: its data cannot be read: {data.why_unreadable(error)}") from error
        addresses = [] if file is None else remote_files(file)
        if addresses:
            raise MissingData(
                f"task {shown}: its data at {', '.join(addresses)} cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}): bring the file here, and name it in dataset_kwargs.data_files"
            ) from error
        raise MissingData(
            f"task {shown} needs {_data_set(name, file, manager)}, which is neither cached here nor can be downloaded "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). On a machine with a network, download it "
            f"with `hf download --repo-type dataset NAME --local-dir FOLDER`, copy the folder here, and name it: "
            f"--tasks {shown}{LOCAL_DATA}FOLDER. A copied cache does too: set HF_HOME to it"
        ) from error


def _settings_of(file: TaskFile, folder: Path | None, commit: str | None = None) -> dict[str, Any]:
    """A task file's settings with its data where they are, at ``commit`` on the hub, and its questions looked at."""
    from evals.adapters.lm_eval_internals import load_task_settings
    from evals.data_caches import prepared_folder
    from evals.questions import WHERE, FileTask
    from evals.task_data import LocalData, check_lines
    from evals.task_settings import check_settings

    if "class" not in file.settings:
        check_settings(file, folder)
    data = LocalData(file, folder)
    check_lines(file, data.files)
    for function in file.functions:
        if (module := function.file) is not None:
            refresh_bytecode(module)
    settings = load_task_settings(file.path) | data.settings
    if data.is_complete:
        given = settings.get("dataset_kwargs") or {}
        prepared = prepared_folder(data.files, given.get("cache_dir"))
        settings["dataset_kwargs"] = {**given, "cache_dir": str(prepared)}
    elif commit is not None:
        settings["dataset_kwargs"] = {**(settings.get("dataset_kwargs") or {}), "revision": commit}
    settings = {key: value for key, value in settings.items() if not (key == "dataset_name" and value is None)}
    if "class" in settings:
        return settings
    return {**settings, "class": FileTask, WHERE: str(file.path)}


def _check_commit(name: str, task: Any, commit: str | None) -> None:
    """
    Raises:
        MissingData: ``task`` has read its data set at another commit than it names, or than ``commit``. Without a
            network datasets takes the latest that is kept, whatever was asked for.
    """
    from evals.hub_data import loaded_commit

    config: Any = getattr(task, "config", None)
    kwargs = getattr(config, "dataset_kwargs", None) or {}
    asked = commit or kwargs.get("revision")
    found = loaded_commit(getattr(task, "dataset", None))
    if found is not None and COMMIT.fullmatch(str(asked)) and found != asked:
        source = config.dataset_path
        raise MissingData(
            f"task {name} needs the data set {source} at the commit {asked}, and what the cache here gives without a "
            f"network is {found}. With a network it is brought; or bring it with `hf download --repo-type dataset "
            f"{source} --revision {asked} --local-dir FOLDER`, and name the folder: {name}{LOCAL_DATA}FOLDER"
        )


def _with_data(name: TaskName, manager: TaskManager) -> dict[str, Any]:
    """The configuration of a task of lm-eval, reading its data set from a folder."""
    entry = manager.task_index.get(name.name)
    file = entry.yaml_path if entry is not None else None
    if file is None or (found := read_task_file(file)).is_group or "dataset_path" not in found.settings:
        raise ConfigurationError(f"{name.name} is not a single task with a data set, so it cannot be given a folder")
    assert name.folder is not None
    if not name.folder.is_dir():
        raise ConfigurationError(f"--tasks {name.name}{LOCAL_DATA}{name.folder}: there is no folder {name.folder}")
    return _settings_of(found, name.folder)


def _data_set(name: TaskName, file: TaskFile | None, manager: TaskManager) -> str:
    entry = manager.task_index.get(name.name)
    if file is None and entry is not None and entry.yaml_path is not None:
        file = read_task_file(entry.yaml_path)
    settings: Mapping[str, Any] = file.settings if file is not None else {}
    if settings.get("dataset_path") is None:
        return "a data set"
    named = f" ({settings['dataset_name']})" if settings.get("dataset_name") else ""
    return f"the data set {settings['dataset_path']}{named}"


def _unusable_cache() -> str | None:
    """Why nothing can be written where data sets are prepared, those of files too; None where it can."""
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder}: {os.strerror(errno.EACCES)}"


def _is_about_data(error: BaseException) -> bool:
    """Whether it comes from finding or fetching a data set."""
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(
        modules & {"datasets", "huggingface_hub", "requests", "httpx", "httpx2", "pyarrow"}
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return "; calm-bench lm-eval ls tasks lists them, and a path of a task file works too"
