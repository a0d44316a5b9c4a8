"""Results of finished stages, read by kind and identity from a store that may be older than this code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.store.layout import stage_folder
from pipelines.store.provenance import ProvenanceRecord
from pipelines.store.refs import StageRef
from pipelines.store.trial_record import TrialRecord
from pipelines.study.stage_folder import StageRecord, is_finished, read_result


class StageRecords:
    """What a store holds of the stages that the trials of its studies name. Nothing is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.result = cache(self._result)

    def folder(self, kind: str, identity: str) -> Path | None:
        """The finished stage's folder; None where there is none, or the names would leave the store."""
        if not StageRef(kind, identity).is_plain:
            return None
        folder = stage_folder(self.root, kind, identity)
        return folder if is_finished(folder) else None

    def config(self, kind: str, identity: str) -> dict[str, Any]:
        """The configuration of a stage; empty where the stage is missing."""
        record = self._record(kind, identity)
        return {} if record is None else record.config

    def label(self, ref: StageRef) -> str:
        """What a stage is called; empty where it is missing."""
        record = self._record(ref.kind, ref.identity)
        return "" if record is None else record.label

    def provenance(self, ref: StageRef) -> ProvenanceRecord:
        """Where a stage came from; without any field where that is not on record."""
        folder = self.folder(ref.kind, ref.identity)
        return (None if folder is None else ProvenanceRecord.load(folder)) or ProvenanceRecord()

    def of_trial(self, trial: TrialRecord) -> Iterator[StageRef]:
        """The trial's finished stages."""
        return (ref for ref in trial.refs if self.folder(ref.kind, ref.identity) is not None)

    def _record(self, kind: str, identity: str) -> StageRecord | None:
        folder = self.folder(kind, identity)
        try:
            return None if folder is None else StageRecord.load(folder)
        except FileNotFoundError:
            return None

    def _result(self, kind: str, identity: str) -> dict[str, Any]:
        """The result of a stage; empty where the stage is missing."""
        folder = self.folder(kind, identity)
        return {} if folder is None else read_result(folder)
