"""The metrics of trainings sent as their logs grow, each line once however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.store.metrics_log import MetricsTail
from pipelines.study.stage_kind import streams_metrics
from pipelines.tracking.known_run import KnownRun
from pipelines.tracking.metrics import metrics_of
from pipelines.tracking.study_files import Trial
from pipelines.tracking.tags import SENT
from pipelines.tracking.times import StageFolders

if TYPE_CHECKING:
    from mlflow.entities import Metric

METRICS_PER_BATCH = 900
"""MLflow takes 1000 metrics, parameters and tags in one request."""


class MetricStreams:
    """The logs of a study's trials, by trial and kind of stage.

    Args:
        progress: called after each part that has arrived.
    """

    def __init__(self, progress: Callable[[], None]) -> None:
        self._progress = progress
        self._logs: dict[tuple[str, str], MetricsTail] = {}

    def send(self, run: KnownRun, trial: Trial) -> None:
        """Send what was added to the logs of ``trial``, in order.

        The cursor, the last step sent by stage and split, travels in the same request as what it counts.
        """
        from mlflow.entities import RunTag

        cursor: dict[str, int] = json.loads(run.tags.get(SENT, "{}"))
        batch: list[Metric] = []

        def log() -> None:
            tag = RunTag(SENT, json.dumps(cursor))
            run.client.log_batch(run.run_id, metrics=batch, tags=[tag])
            run.tags[SENT] = tag.value
            batch.clear()
            self._progress()

        for kind in trial.stages:
            if not streams_metrics(kind):
                continue
            start = trial.stages[kind].start() or run.start
            for line in self._log(trial.key, trial.stages[kind]).read():
                stream = f"{kind}/{line.split}"
                if line.step <= cursor.get(stream, -1):
                    continue
                metrics = list(metrics_of(line, start))
                if batch and len(batch) + len(metrics) > METRICS_PER_BATCH:
                    log()
                batch += metrics
                cursor[stream] = line.step
        if batch:
            log()

    def forget(self, trial: Trial) -> None:
        """Read the logs of ``trial`` from their start the next time; what has arrived is not sent again."""
        for kind in trial.stages:
            self._logs.pop((trial.key, kind), None)

    def _log(self, key: str, stage: StageFolders) -> MetricsTail:
        if (key, stage.kind) not in self._logs:
            self._logs[key, stage.kind] = MetricsTail(stage.kind, (stage.work, stage.finished))
        return self._logs[key, stage.kind]
