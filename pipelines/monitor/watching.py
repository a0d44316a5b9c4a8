"""Studies in a store as their drivers tell of them; nothing is locked or written."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from calm_bench.file_time import file_time
from calm_bench.problems import ConfigurationError
from calm_bench.working_directory import working_directory
from pipelines.common.numbers import printable
from pipelines.common.record_file import RecordError
from pipelines.common.shell_commands import of_mask, shell_command
from pipelines.monitor.recording import FOLDER, SILENT_S, Record, read_record
from pipelines.monitor.view import StageView, StudyView
from pipelines.store.layout import study_folders
from pipelines.store.refs import StudyRef
from pipelines.store.study_names import choose_studies, how_to_begin
from pipelines.store.study_record import load_study
from pipelines.store.trial_record import TRIALS_FILE, has_begun, load_trials

STORE = "--store"
Stand = Literal["at work", "finished", "left"]
"""``left``: it has not ended, and no driver is at work on it."""


@dataclass(frozen=True)
class Watched:
    """A study as it stands."""

    view: StudyView
    stand: Stand
    since: float
    """When it was last heard of, in seconds since the epoch."""
    command: str
    """By which it goes on."""
    folder: str
    """Where that command was given; empty where it is not known."""
    drivers: int = 0
    """How many are at work."""
    driver: str = ""
    """Unique to the driver whose view this is."""
    remark: str = ""
    """What is to be said of how this was learnt."""

    @property
    def note(self) -> str:
        """What is to be said of the whole; empty while a single driver is at work."""
        return "; ".join(filter(None, [self._stand_in_words(), self.remark]))

    def _stand_in_words(self) -> str:
        if self.since == 0:
            return f"{self.view.folder} is gone: --store says where the store is now"
        when = _clock(self.since)
        if self.stand == "finished":
            return f"the study ended at {when}"
        if self.stand == "left":
            stopped = "no driver is at work since"
            where = f" (in {self.folder})" if self.folder and self.folder != str(working_directory()) else ""
            return f"{stopped} {when}; {self.command} continues{where}{of_mask(self.command)}"
        return f"{self.drivers} drivers are at work on it" if self.drivers > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.stand,
            "since": self.since,
            "drivers": self.drivers,
            "command": self.command,
            **self.view.model_dump(mode="json"),
        }


def poll(folder: Path, uri: Path | str, silent_s: float = SILENT_S) -> Watched:
    """The study in ``folder`` of the store at ``uri``, from what its drivers last wrote.

    Where drivers disagree the one that is furthest counts, with the stages that any of them runs. Without a word of a
    driver the study's ``trials.json`` says what became of its trials.

    Args:
        silent_s: after how long without a word a driver on another host is taken for dead.
    """
    found = [(record, mtime) for path in _files(folder) if (record := read_record(path)) and (mtime := _mtime(path))]
    # Asked where it decides something: whoever looks at a store writes as little into it as can be.
    elsewhere = any(not record.driver.holder().is_here for record, _ in found if record.state == "at work")
    now = file_time(folder / FOLDER) if elsewhere else time.time()
    live = [(record, mtime) for record, mtime in found if _is_at_work(record, now - mtime, silent_s)]
    if not found:
        return _without_a_record(folder, uri)
    if live:
        record, _ = max(live, key=lambda pair: _reach(pair[0].view))
        others = [other.view for other, _ in live if other is not record]
        view = _merged(record.view, others)
        since = max(mtime for _, mtime in live)
        token = record.driver.token
        return Watched(view, "at work", since, _command_here(record, uri), record.folder, len(live), token)
    finished = [pair for pair in found if pair[0].state == "finished"]
    record, mtime = max(finished or found, key=lambda pair: pair[1])
    stand: Stand = "finished" if finished else "left"
    command = _command_here(record, uri)
    return Watched(_at_rest(record.view), stand, mtime, command, record.folder, driver=record.driver.token)


def studies(root: Path, uri: Path | str, silent_s: float = SILENT_S) -> list[tuple[Path, Watched]]:
    """All studies of a store that are in ``root``; first those at work, then the one last heard of."""
    found = [
        (folder, poll(folder, uri, silent_s))
        for folder in study_folders(root)
        if has_begun(folder) or (folder / FOLDER).is_dir()
    ]
    return sorted(found, key=lambda pair: (pair[1].stand != "at work", -pair[1].since))


def choose(
    root: Path, name: str | None, uri: Path | str | None = None, silent_s: float = SILENT_S
) -> tuple[Path, list[str]]:
    """The folder of the study ``name``, and the names of others that are meant too: of one name, or at work.

    Args:
        root: where the store, or this machine's copy of it, is.
        uri: what the store is called, where that is not ``root``.
        name: a study's name, its folder's name or the beginning of it, or a YAML file's path; None means the one at
            work, or the last.

    Raises:
        ConfigurationError: there is no such study, or several begin so.
    """
    uri = uri or root
    found = studies(root, uri, silent_s)
    if not found:
        raise ConfigurationError(f"no study has begun in the store {uri}: {how_to_begin(uri)}")
    if name is None:
        folder = found[0][0]
        others = [path.name for path, watched in found[1:] if watched.stand == "at work"]
        return folder, others
    # Of equal names, differing in their settings: the one at work, or last heard of.
    chosen = choose_studies([name], [folder for folder, _ in found], uri)
    called = StudyRef.of(chosen[0]).name
    # A file's study may run with overrides, which makes it another one.
    at_work = [path for path, one in found if one.stand == "at work" and StudyRef.of(path).name == called]
    return chosen[0], [folder.name for folder in dict.fromkeys([*chosen[1:], *at_work]) if folder != chosen[0]]


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / FOLDER).glob("*.json")) if not path.name.startswith(".")]


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_at_work(record: Record, age_s: float, silent_s: float) -> bool:
    holder = record.driver.holder()
    if record.state != "at work" or holder.is_gone():
        return False
    return holder.is_here or age_s < silent_s


def _command_here(record: Record, uri: Path | str) -> str:
    """The command by which a study goes on, with the place of the store as it is now: it may have been moved since."""
    try:
        words = shlex.split(record.command)
    except ValueError:
        return record.command
    if "://" in str(uri) or "execution.store=" in record.command:
        return shell_command(words)
    given = [index for index, word in enumerate(words) if word == STORE or word.startswith(f"{STORE}=")]
    at = given[-1] if given else len(words)
    length = 0 if not given else 1 if "=" in words[at] else 2
    named = Path(words[at + length - 1].removeprefix(f"{STORE}=") if given else "runs").expanduser()
    if (Path(record.folder) / named).resolve() == Path(uri).resolve():
        return shell_command(words)
    return shell_command([*words[:at], STORE, str(uri), *words[at + length :]])


def _reach(view: StudyView) -> tuple[int, int]:
    ended = view.stages.get("done", 0) + view.stages.get("cached", 0)
    return view.complete + view.failed + view.pruned, ended


def _merged(view: StudyView, others: Sequence[StudyView]) -> StudyView:
    running: dict[str, StageView] = {stage.name: stage for stage in view.running}
    for other in others:
        for stage in other.running:
            seen = running.get(stage.name)
            if seen is None or seen.step < stage.step:
                running[stage.name] = stage
    return view.model_copy(update={"running": tuple(running.values())})


def _at_rest(view: StudyView) -> StudyView:
    """What a driver that is gone left behind: nothing runs, and what it ran waits for the next one."""
    stages = Counter(view.stages)
    stages["queued"] += stages.pop("running", 0)
    trials = tuple(
        trial.model_copy(update={"state": "waiting", "note": ""}) if trial.state == "running" else trial
        for trial in view.trials
    )
    changed = {"running": (), "stages": +stages, "trials": trials, "stopping": "", "remaining_s": None}
    return view.model_copy(update=changed)


def _without_a_record(folder: Path, uri: Path | str) -> Watched:
    name = StudyRef.of(folder).name
    counts: Counter[str] = Counter()
    try:
        counts.update(trial.state for trial in load_trials(folder))
    except (OSError, RecordError):
        counts.clear()
    view = StudyView(
        study=printable(name),
        folder=str(folder),
        num_trials=counts.total(),
        complete=counts["complete"],
        failed=counts["failed"] + counts["invalid"],
        pruned=counts["pruned"],
    )
    stand: Stand = "left" if counts["open"] or not counts else "finished"
    since = _mtime(folder / TRIALS_FILE) or _mtime(folder)
    # The name of a study may be a file's, or have been run with settings of its own.
    record = load_study(folder)
    again = shell_command(["calm-bench", "run", name, STORE, str(uri)]) if record is None else record.command(str(uri))
    return Watched(view, stand, since, again, "")


def _clock(moment: float) -> str:
    """``14:05``; with the date if that is not today's."""
    when = datetime.fromtimestamp(moment)
    return f"{when:%H:%M}" if when.date() == datetime.now().date() else f"{when:%Y-%m-%d %H:%M}"
