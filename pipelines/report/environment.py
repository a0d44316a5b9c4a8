"""What a study ran on and with, from the provenance of its stages."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.common.numbers import MISSING, duration, scientific, typeset
from pipelines.common.sanitize import sanitize_label
from pipelines.report.stage_records import StageRecords
from pipelines.store.trial_record import TrialRecord
from pipelines.study.stage_kind import STAGE_KINDS, heading_of


class Environment:
    """The provenance of all stages of a study, each counted once however many trials share it."""

    def __init__(self, files: StageRecords, trials: Iterable[TrialRecord]) -> None:
        stages = dict.fromkeys(stage for trial in trials for stage in files.of_trial(trial))
        self.records = {stage: files.provenance(stage) for stage in stages}

    @property
    def finished(self) -> str | None:
        """When the last stage ended, in UTC to the minute."""
        ends = [record.ended for record in self.records.values() if record.ended is not None]
        if not ends:
            return None
        return datetime.datetime.fromtimestamp(max(ends), datetime.UTC).strftime("%Y-%m-%d %H:%M")

    @property
    def commits(self) -> list[str]:
        """Commits of the code, whole, with ``(modified)`` behind those whose files were changed."""
        found = []
        for record in self.records.values():
            if record.git is not None:
                found.append(record.git.commit + (" (modified)" if record.git.modified else ""))
        return list(dict.fromkeys(found))

    @property
    def version(self) -> str | None:
        return next((record.versions["calm-bench"] for record in self.records.values() if record.versions), None)

    def table(self) -> list[tuple[str, str]]:
        """Name and value; several values where stages ran on different machines or versions. The host's name is left
        out: a report is shown to others."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for record in self.records.values():
            for name, version in record.versions.items():
                found[name][version] = None
            if record.device:
                found["device"][record.device] = None
            if record.platform:
                found["platform"][record.platform] = None
        for commit in self.commits:
            found["git commit"][commit] = None
        first = ("calm-bench", "git commit", "device", "platform", "python")
        names = [*(name for name in first if name in found), *(name for name in found if name not in first)]
        return [(sanitize_label(name, 100), sanitize_label(", ".join(found[name]), 500)) for name in names]

    def stages(self) -> Sequence[Mapping[str, Any]]:
        """Kind, count and the cells of the table of work, by kind of stage."""
        sums: dict[str, dict[str, Any]] = {}
        for ref, record in self.records.items():
            row = sums.setdefault(ref.kind, {"kind": ref.kind, "count": 0, "wall_time_s": 0.0, "flops": 0.0})
            row["count"] += 1
            row["wall_time_s"] += record.wall_time_s or 0.0
            row["flops"] += record.flops or 0.0
        known = [sums.pop(kind) for kind in STAGE_KINDS.built_in if kind in sums]
        return [
            {
                "kind": row["kind"],
                "count": row["count"],
                "cells": [
                    heading_of(row["kind"]),
                    str(row["count"]),
                    duration(row["wall_time_s"]),
                    typeset(scientific(row["flops"])) if row["flops"] else MISSING,
                ],
            }
            for row in [*known, *sums.values()]
        ]

    @property
    def wall_time_s(self) -> float:
        """Summed over all stages."""
        return sum(record.wall_time_s or 0.0 for record in self.records.values())

    @property
    def flops(self) -> float:
        """Training FLOPs of all stages."""
        return sum(record.flops or 0.0 for record in self.records.values())
