"""The task files behind a name of lm-eval: a task, or all of a group or of a tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

DATA_SETTINGS = frozenset({"dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset"})
"""Settings by which a group gives a task other questions."""


@lru_cache(maxsize=1)
def lm_eval_index() -> Mapping[str, Any]:
    """lm-eval's tasks, groups and tags by name, 14.7 thousand: indexed once in a process, which takes seconds."""
    from lm_eval.tasks import TaskManager

    return dict(TaskManager().task_index)


@dataclass
class NamedTasks:
    """What a name stands for."""

    files: dict[str, Path] = field(default_factory=dict)
    """The task files of single tasks, by task."""
    groups: list[Path] = field(default_factory=list)
    """The files of the groups on the way to them."""
    open_ends: list[str] = field(default_factory=list)
    """Tasks whose questions no file tells: programs, and what a group sets for its members."""


@lru_cache(maxsize=256)
def tasks_named(name: str) -> NamedTasks | None:
    """The tasks that ``name`` of lm-eval stands for; None where it has no such name."""
    index = lm_eval_index()
    if name not in index:
        return None
    found = NamedTasks()
    _collect(name, index, found, set())
    return found


def _collect(name: str, index: Mapping[str, Any], found: NamedTasks, seen: set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    entry: Any = index.get(name)
    kind = None if entry is None else entry.kind.name
    if kind == "TAG":
        for task in sorted(entry.tags):
            _collect(task, index, found, seen)
    elif kind == "GROUP":
        found.groups.append(entry.yaml_path)
        _collect_members(entry.cfg.get("task"), index, found, seen)
    elif kind == "TASK" and entry.yaml_path is not None:
        found.files[name] = entry.yaml_path
    else:
        found.open_ends.append(name)


def _collect_members(members: Any, index: Mapping[str, Any], found: NamedTasks, seen: set[str]) -> None:
    for member in members if isinstance(members, list) else []:
        if isinstance(member, str):
            _collect(member, index, found, seen)
            continue
        name = str(member.get("group") or member.get("task"))
        if name in index:
            _collect(name, index, found, seen)
        else:
            # Described in place.
            _collect_members(member.get("task"), index, found, seen)
        if DATA_SETTINGS & member.keys():
            found.open_ends.append(name)
