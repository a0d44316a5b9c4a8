"""A study as its files tell it: the only source of what MLflow holds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity as fingerprint
from calm_bench.overrides import apply_settings
from pipelines.common.record_file import RecordError
from pipelines.planning.trials_to_run import trials_to_run
from pipelines.results.entry import Entry, entry_from
from pipelines.results.final_rows import with_search_cost
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, load_board
from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.refs import StudyRef
from pipelines.store.store import Store
from pipelines.store.study_record import StudyRecord
from pipelines.store.trial_record import TrialRecord, has_begun, load_trials
from pipelines.study.config import Study
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_folder import StageRecord, is_finished, read_result
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.address import TrackingError
from pipelines.tracking.system_metrics import SystemLog
from pipelines.tracking.times import StageFolders, trial_start

if TYPE_CHECKING:
    from pipelines.study.trial import TrialRole, TrialState

WRITTEN_AS = 6
"""Raised when more or other things are written of a trial, so that runs written before are completed."""

_PUBLISHED = (LEADERBOARD_FILE, "*.csv", "*.html", "*.md", "*.png", "*.svg")
"""What a run of a study attaches to it; the rest of its folder is its own bookkeeping."""


@dataclass(frozen=True)
class TrialEnd:
    """What became of a trial."""

    state: TrialState
    error: str | None = None
    violations: tuple[str, ...] = ()
    entry: Entry | None = None
    """Its row; None unless the trial is complete."""
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results of its finished stages, by kind; empty where there is no row."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Folders of its finished stages, by kind; empty where there is no row."""

    @cached_property
    def digest(self) -> str:
        """Equal digests are written alike."""
        return fingerprint([WRITTEN_AS, self.state, self.error, list(self.violations), self.entry])


@dataclass(frozen=True)
class Trial:
    """A trial of a study, open or ended."""

    number: int
    label: str
    experiment: Experiment | None
    """None where its settings do not fit together."""
    role: TrialRole = "search"
    stages: Mapping[str, StageFolders] = field(default_factory=dict)
    """By kind, in the order in which they run."""
    end: TrialEnd | None = None

    @property
    def key(self) -> str:
        """What makes its run unique within its study: ``number/identity of its last stage``, because equal settings
        on another corpus or Python are another result."""
        last = list(self.stages.values())[-1].identity if self.stages else "invalid"
        return f"{self.number}/{last}"


@dataclass(frozen=True)
class StoredStudy:
    """One study of a store at one moment."""

    study: Study
    start: int
    """Milliseconds since 1970."""
    trials: Sequence[Trial]
    leaderboard: Leaderboard | None
    """As its last complete run wrote it."""
    problems: Sequence[str] = ()
    """Trials that are missing here, and why."""
    num_to_run: int = 0
    """Trials that it has not yet, or that have not ended."""

    @property
    def is_whole(self) -> bool:
        """Whether these are all trials, and the leaderboard is theirs: as the last run left them, which came to its
        end."""
        if self.num_to_run or self.problems or self.leaderboard is None:
            return False
        ends = {trial.number: trial.end for trial in self.trials}
        rows = {number: end.entry.model_identity for number, end in ends.items() if end is not None and end.entry}
        is_theirs = all(rows.get(row.trial) == row.model_identity for row in self.leaderboard)
        return is_theirs and None not in ends.values()

    @property
    def status(self) -> str:
        """Status of its run in MLflow, when nobody works on it."""
        ends = [trial.end for trial in self.trials if trial.end is not None]
        if self.num_to_run or self.problems or len(ends) < len(self.trials):
            return "KILLED"
        return "FINISHED" if any(end.state == "complete" for end in ends) else "FAILED"


def published_files(folder: Path) -> list[Path]:
    """The files of a study's folder that are its run's artifacts."""
    return sorted({path for pattern in _PUBLISHED for path in folder.glob(pattern) if path.is_file()})


def begun_studies(store: Store) -> list[Path]:
    """The folders of all studies in ``store`` that have begun."""
    return [folder for folder in store.studies.folders() if has_begun(folder)]


class StudyFiles:
    """The study in ``folder`` of ``store``, to be read again as it grows: ended trials are read once. Never writes."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._ended: dict[int, tuple[TrialRecord, Entry | None, Trial]] = {}
        """By number: its record, its row on the leaderboard, and what was read."""
        self.stage = cache(self._stage)

    def read(self) -> StoredStudy:
        """The study as it is now; without trials, where none was asked yet.

        Raises:
            TrackingError: a file is missing or cannot be read; says which.
        """
        try:
            configuration = StudyRecord.load(self._folder)
            study = configuration.study()
            leaderboard = load_board(self._folder)
            rows = {entry.trial: entry for entry in leaderboard or ()}
            records = load_trials(self._folder) if has_begun(self._folder) else ()
            num_to_run = trials_to_run(study, self._folder)
        except (OSError, RecordError, LeaderboardError) as error:
            raise TrackingError(
                f"the study in {self._folder} cannot be read ({type(error).__name__}: {error})"
            ) from error
        trials, problems = [], []
        for record in records:
            try:
                trials.append(self._trial(study, record, rows))
            except (OSError, ValueError, KeyError, TypeError) as error:
                # The others must not wait for it.
                problems.append(f"trial {record.number} cannot be read ({type(error).__name__}: {error})")
        starts = [start for trial in trials if (start := trial_start(trial.stages, 0)) is not None]
        made = round(1000 * configuration.path.stat().st_mtime)
        start = SystemLog(self._folder).start() or min(starts, default=made)
        return StoredStudy(study, start, trials, leaderboard, problems, num_to_run)

    def _trial(self, study: Study, record: TrialRecord, rows: Mapping[int, Entry]) -> Trial:
        read_from = record, rows.get(record.number)
        known = self._ended.get(record.number)
        if known is not None and known[:2] == read_from:
            return known[2]
        trial = self._read_trial(study, record, rows)
        if trial.end is not None:
            self._ended[record.number] = (*read_from, trial)
        return trial

    def _read_trial(self, study: Study, record: TrialRecord, rows: Mapping[int, Entry]) -> Trial:
        number, label, state, settings, names = (
            record.number,
            record.label,
            record.state,
            record.settings,
            record.stages,
        )
        stages = {kind: StageFolders.in_store(self._store.root, kind, identity) for kind, identity in names.items()}
        # An invalid trial is one whose settings do not fit together.
        experiment = None if state == "invalid" else apply_settings(study.experiment(), settings)
        end = None
        if state == "complete":
            folders = {kind: stage.finished for kind, stage in stages.items() if is_finished(stage.finished)}
            results = {kind: read_result(folder) for kind, folder in folders.items()}
            try:
                graph = StageGraph(tuple(self.stage(kind, identity) for kind, identity in names.items()))
                addresses = {stage.kind: self._store.address(stage) for stage in graph.stages}
                outcome = TrialOutcome(
                    number,
                    label,
                    settings,
                    "complete",
                    None,
                    experiment,
                    graph,
                    results,
                    folders,
                    addresses,
                    role=record.role,
                    stratum=record.stratum,
                )
                # As a board that is read from the study's folder has it.
                identity = StudyRef.of(self._folder).identity
                entry = entry_from(outcome, study).model_copy(update={"study_identity": identity})
                entry = with_search_cost(entry, rows.get(number))
            except (OSError, ValueError, KeyError, TypeError):
                # Parts of its stages were deleted, or an older version wrote them.
                if number not in rows or rows[number].model_identity not in names.values():
                    # On a leaderboard of before the number may be another trial's.
                    raise
                entry = rows[number]
            end = TrialEnd(state, None, record.violations, entry, results, folders)
        elif state != "open":
            end = TrialEnd(state, record.error, record.violations)
        return Trial(number, label, experiment, record.role, stages, end)

    def _stage(self, kind: str, identity: str) -> Stage:
        """A stage as its folder describes it: an older revision's too, which the code of today would name otherwise."""
        stage = StageFolders.in_store(self._store.root, kind, identity)
        found = StageRecord.load(stage.finished)
        inputs = {name: self.stage(source.kind, source.identity) for name, source in found.inputs.items()}
        return Stage(kind, found.revision, found.config, inputs, found.settings, found.label)
