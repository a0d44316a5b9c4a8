"""Who watches the studies of a store, wherever it is: in a folder that is looked at, or in an object store."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipelines.common.numbers import printable
from pipelines.common.record_file import RecordError
from pipelines.monitor.recording import SILENT_S
from pipelines.monitor.view import StageView
from pipelines.monitor.watching import Watched, choose, poll
from pipelines.store.errors import StoreUnreachable
from pipelines.store.refs import StageRef
from pipelines.store.remote_progress import POLL_S, UnderWay
from pipelines.store.store import Store
from pipelines.store.study_drivers import is_driven
from pipelines.store.trial_record import load_trials

LOCAL_POLL_S = 1.0
REMOTE_SILENT_S = 150.0
"""A driver whose word comes through an object store is some intervals of it late."""


class StudyWatcher:
    """Looks at studies; nothing is locked, and nothing written but this machine's copy of a remote store.

    Args:
        poll_s: seconds between two polls; the store's own if unset.
    """

    def __init__(self, store: Store, poll_s: float | None = None) -> None:
        self._root = store.root
        self._uri = store.uri
        self._remote = store.progress
        self._silent_s = SILENT_S if self._remote is None else REMOTE_SILENT_S
        self.poll_s = poll_s or (LOCAL_POLL_S if self._remote is None else POLL_S)
        """How often to poll."""
        self._last: Watched | None = None

    def choose(self, name: str | None) -> tuple[Path, list[str]]:
        """As :func:`pipelines.monitor.watching.choose`.

        Raises:
            ConfigurationError: there is no such study.
            StoreUnreachable: the store does not answer.
        """
        if self._remote is not None:
            self._remote.poll()
        return choose(self._root, name, self._uri, self._silent_s)

    def poll(self, folder: Path) -> Watched:
        """The study in ``folder`` as it stands, or stood when the store last answered."""
        if self._remote is None:
            return poll(folder, self._uri)
        try:
            self._remote.poll(folder.name)
            users = _users(folder)
            under_way = self._remote.under_way(users)
        except StoreUnreachable as error:
            if self._last is None:
                raise
            return replace(self._last, remark=f"{error}; this is what was known before")
        watched = poll(folder, self._uri, self._silent_s)
        self._last = _with_stages(watched, under_way, users, is_driven(folder.name, self._remote.held))
        return self._last


def _with_stages(
    watched: Watched, under_way: Mapping[str, UnderWay], users: Mapping[str, list[int]], is_driven: bool
) -> Watched:
    """What drivers told, with who works on what; numbers that hosts uploaded themselves stand where they are newer.

    A driver that has told nothing, as those of older versions, is known by what is worked on.
    """
    running = {
        stage.name: stage.model_copy(update={"as_of": watched.since})
        for stage in (watched.view.running if watched.stand == "at work" else ())
    }
    for name, found in under_way.items():
        seen = running.get(name) or StageView(
            name=name,
            label=printable(found.label or StageRef.parse(name).title),
            trial=min(users[name]),
            num_trials=len(users[name]),
        )
        told = {"host": printable(found.host), "since": found.since, **_numbers(found, seen)}
        running[name] = seen.model_copy(update=told)
    view = watched.view.model_copy(update={"running": tuple(running.values())})
    if watched.stand != "at work" and (is_driven or (not watched.driver and under_way)):
        return replace(watched, view=view, stand="at work", since=time.time())
    remark = ""
    if watched.stand != "at work" and under_way:
        # Of another study that needs the same.
        remark = "some of its stages are worked on"
    return replace(watched, view=view, remark=remark)


def _numbers(found: UnderWay, seen: StageView) -> dict[str, float | int | None]:
    """What the uploaded line of metrics says, where the driver knows no more."""
    line = found.line
    if line is None or int(line["step"]) <= seen.step:
        return {}
    metrics = line.get("metrics")
    numbers = metrics if isinstance(metrics, dict) else {}
    total = line.get("total_steps")
    return {
        "step": int(line["step"]),
        "total_steps": int(total) if isinstance(total, int) else seen.total_steps,
        "loss": _number(numbers.get("loss")),
        "tokens_per_second": _number(numbers.get("tokens_per_second")),
        "mb_per_second": _number(numbers.get("mb_per_second")),
        "remaining_s": None,
        "as_of": found.as_of,
    }


def _users(folder: Path) -> dict[str, list[int]]:
    """The numbers of the trials that need a stage, by its name; nothing where they cannot be read."""
    users: dict[str, list[int]] = defaultdict(list)
    try:
        for trial in load_trials(folder):
            for ref in trial.refs:
                users[ref.name].append(trial.number)
    except (OSError, RecordError):
        return {}
    return users


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
