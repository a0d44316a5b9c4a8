"""When stages ran, as their files tell it: MLflow filled again must show the hours of the original.

All times are milliseconds since 1970, by the clock of the machine that ran the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.store.layout import stage_folder, work_folder
from pipelines.store.metrics_log import read_lines
from pipelines.store.provenance import Attempt, ProvenanceRecord, read_attempts
from pipelines.store.refs import StageRef
from pipelines.study.stage_kind import streams_metrics


@dataclass(frozen=True)
class StageFolders:
    """A stage of a trial and where its files are."""

    kind: str
    identity: str
    finished: Path
    """The folder that appears whole when the stage has ended."""
    work: Path
    """Where it is worked on until then."""

    @classmethod
    def in_store(cls, root: Path, kind: str, identity: str) -> StageFolders:
        ref = StageRef(kind, identity)
        if not ref.is_plain:
            raise ValueError(f"{kind!r} {identity!r} is no stage: such a name would lead out of the store")
        return cls(kind, identity, stage_folder(root, kind, identity), work_folder(root, ref.name))

    @property
    def folder(self) -> Path:
        return self.finished if self.finished.is_dir() else self.work

    def start(self) -> int | None:
        """When the first attempt began; None before that, and for a stage that keeps no record of it."""
        attempts = self._attempts()
        return _ms(attempts[0].started) if attempts else None

    def end(self) -> int | None:
        """When the last attempt ended; where the stage is not finished, the last sign of life that is on record."""
        attempts = self._attempts()
        if not attempts:
            return None
        record = ProvenanceRecord.load(self.finished)
        if record is not None:
            return _ms(attempts[-1].started + (record.wall_time_s or 0.0))
        lines = read_lines(self.kind, self.work)
        trained = attempts[0].started + (lines[-1].time if lines else 0.0)
        return _ms(max(attempts[-1].started, trained))

    def _attempts(self) -> tuple[Attempt, ...]:
        record = ProvenanceRecord.load(self.finished)
        return read_attempts(self.work) if record is None else record.attempts


def trial_start(stages: Mapping[str, StageFolders], study_start: int) -> int | None:
    """When the first of a trial's trainings began, though not before its study: it may be of an earlier one.

    None before it has begun.
    """
    starts = [start for kind in stages if streams_metrics(kind) and (start := stages[kind].start()) is not None]
    return max(study_start, min(starts)) if starts else None


def trial_end(stages: Mapping[str, StageFolders], start: int) -> int:
    """When the last of a trial's stages ended, though not before ``start``."""
    return max([start, *(end for stage in stages.values() if (end := stage.end()) is not None)])


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
