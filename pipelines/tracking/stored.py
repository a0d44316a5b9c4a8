"""A study read back from its files, as the mirror would have been told it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from calm_bench.overrides import apply_settings
from pipelines.results.entry import Entry, entry_from
from pipelines.results.leaderboard import Leaderboard, LeaderboardError
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.space import grid_points
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.client import TrackingError
from pipelines.tracking.system_metrics import SystemLog
from pipelines.tracking.times import StagePlace, trial_start
from pipelines.tracking.trials import Trial, TrialEnd

_PUBLISHED = ("leaderboard.json", "*.csv", "*.html", "*.md", "*.png", "*.svg")
"""What a run of a study attaches to it; the rest of its folder is its own bookkeeping."""


@dataclass(frozen=True)
class StoredStudy:
    """One study of a store."""

    study: Study
    identity: str
    folder: Path
    start: int
    """Milliseconds since 1970."""
    trials: tuple[Trial, ...]
    leaderboard: Leaderboard | None
    """As its last complete run wrote it."""
    is_finished: bool
    """All its trials have ended."""

    @property
    def status(self) -> str:
        """Of its run in MLflow."""
        if not self.is_finished:
            return "KILLED"
        some = any(trial.end is not None and trial.end.state == "complete" for trial in self.trials)
        return "FINISHED" if some else "FAILED"


def published_files(folder: Path) -> list[Path]:
    """The files of a study's folder that are its run's artifacts."""
    return sorted({path for pattern in _PUBLISHED for path in folder.glob(pattern) if path.is_file()})


def begun_studies(store: Store) -> list[Path]:
    """The folders of all studies in ``store`` that have begun."""
    return [folder for folder in store.study_folders() if (folder / "trials.json").is_file()]


def read_study(root: Path, folder: Path) -> StoredStudy:
    """The study in ``folder`` of the store at ``root``; nothing is written.

    Raises:
        TrackingError: a file is missing or cannot be read; says which.
    """
    try:
        study = Study.model_validate(yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8")))
        rows = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
        leaderboard = _leaderboard(folder)
        entries = {entry.trial: entry for entry in leaderboard or ()}
        reader = _StageReader(root)
        trials = tuple(_trial(root, study, row, entries, reader) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, ValidationError, LeaderboardError) as error:
        raise TrackingError(f"the study in {folder} cannot be read ({type(error).__name__}: {error})") from error
    starts = [start for trial in trials if (start := trial_start(trial.stages, 0)) is not None]
    start = SystemLog(folder).start() or min(starts, default=round(1000 * (folder / "study.yaml").stat().st_mtime))
    expected = len(grid_points(study.search)) if study.search.sampler == "grid" else study.search.num_trials or 0
    finished = len(trials) >= expected and all(trial.end is not None for trial in trials)
    return StoredStudy(study, folder.name.rpartition("-")[2], folder, start, trials, leaderboard, finished)


def _leaderboard(folder: Path) -> Leaderboard | None:
    path = folder / "leaderboard.json"
    return Leaderboard.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _trial(
    root: Path, study: Study, row: Mapping[str, Any], entries: Mapping[int, Entry], reader: _StageReader
) -> Trial:
    number, label, state = int(row["number"]), str(row["label"]), row["state"]
    stages = {kind: StagePlace.in_store(root, kind, identity) for kind, identity in row["stages"].items()}
    # An invalid trial is one whose settings do not fit together.
    experiment = None if state == "invalid" else apply_settings(study.experiment(), row["settings"])
    trial = Trial(number, label, Trial.key_of(number, stages), experiment, stages)
    if state == "open":
        return trial
    folders = {kind: place.finished for kind, place in stages.items() if (place.finished / "result.json").is_file()}
    results = {kind: json.loads((folder / "result.json").read_text("utf-8")) for kind, folder in folders.items()}
    entry = None
    if state == "complete":
        entry = entries.get(number)
        if entry is None:
            graph = StageGraph(tuple(reader.stage(kind, identity) for kind, identity in row["stages"].items()))
            outcome = TrialOutcome(
                number, label, row["settings"], "complete", None, experiment, graph, results, folders
            )
            entry = entry_from(outcome, study)
    trial.end = TrialEnd(state, row.get("error"), tuple(row.get("violations", ())), entry, results, folders)
    return trial


class _StageReader:
    """Stages as their folders describe them: an older revision's too, which the code of today would name otherwise."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.stage = cache(self._stage)

    def _stage(self, kind: str, identity: str) -> Stage:
        place = StagePlace.in_store(self._root, kind, identity)
        found = json.loads((place.finished / "config.json").read_text(encoding="utf-8"))
        inputs = {name: self.stage(source["kind"], source["identity"]) for name, source in found["inputs"].items()}
        return Stage(kind, found["revision"], found["config"], inputs, found["settings"], found["label"])
