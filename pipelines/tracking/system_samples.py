"""Samples of how busy the machine is, sent to the run of a study: each once, from a log that grows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING

from pipelines.tracking.known_run import KnownRun
from pipelines.tracking.metric_streams import METRICS_PER_BATCH
from pipelines.tracking.system_metrics import Sample
from pipelines.tracking.tags import SAMPLES

if TYPE_CHECKING:
    from mlflow import MlflowClient


def push_samples(client: MlflowClient, run: KnownRun, samples: Iterable[Sample], progress: Callable[[], None]) -> None:
    """Send the samples that have not arrived; their step is in seconds since the start of ``run``, the study's.

    Those that have are counted: of drivers side by side, and of clocks that are set back, a later line of the log may
    be of an earlier time. Hosts that share no disk have a log each, known by the time of its first line.

    Args:
        samples: all of a log, in the order in which they were written.
        progress: called after each part that has arrived.
    """
    from mlflow.entities import Metric, RunTag

    rest = iter(samples)
    first = next(rest, None)
    if first is None:
        return
    arrived: dict[str, int] = json.loads(run.tags.get(SAMPLES, "{}"))
    log = str(first.time)
    new = list(islice(chain([first], rest), arrived.get(log, 0), None))
    size = METRICS_PER_BATCH // max([1, *(len(sample.values) for sample in new)])
    for begin in range(0, len(new), size):
        batch = new[begin : begin + size]
        metrics = [
            Metric(name, value, sample.time, max(0, sample.time - run.start) // 1000)
            for sample in batch
            for name, value in sample.values.items()
        ]
        arrived[log] = arrived.get(log, 0) + len(batch)
        tag = RunTag(SAMPLES, json.dumps(arrived))
        client.log_batch(run.run_id, metrics=metrics, tags=[tag])
        run.tags[SAMPLES] = tag.value
        progress()
