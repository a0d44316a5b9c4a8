"""One evaluation as a run of its own in MLflow; whatever MLflow does, the evaluation stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.common.redact import redact
from pipelines.scoring.evaluation_report import EvaluationReport, protocol_name
from pipelines.study.config import Tracking
from pipelines.study.kinds.samples import as_markdown
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.client import connect, experiment_id
from pipelines.tracking.tags import MODEL_FOLDER, PROTOCOLS, ROLE

if TYPE_CHECKING:
    from mlflow import MlflowClient


EVALUATION = "evaluation"
"""Value of :data:`pipelines.tracking.tags.ROLE`."""


def track_evaluation(
    report: EvaluationReport,
    model_folder: Path,
    parameters: Mapping[str, Any],
    store_root: Path,
    notify: Callable[[str], None],
    tracking: Tracking | None = None,
) -> str | None:
    """Write ``report`` into MLflow: values, errors and sample counts, parameters, JSON and texts.

    Args:
        notify: told in one sentence if it could not be written.

    Returns:
        Where it is, without credentials; None if it could not be written.
    """
    tracking = tracking or Tracking()
    uri = tracking_uri(tracking, store_root)
    try:
        client = connect(uri)
        experiment = experiment_id(client, tracking.experiment, uri, store_root / "mlartifacts")
        _write(client, experiment, report, model_folder, parameters)
    except Exception as error:  # a tracking server, its database driver or the network may raise anything
        reason = redact(f"{type(error).__name__}: {error}")[:300]
        notify(f"MLflow at {redact(uri)} could not be written: {reason}. The scores stand; --json prints all of them")
        return None
    return redact(uri)


def _write(
    client: MlflowClient,
    experiment: str,
    report: EvaluationReport,
    model_folder: Path,
    parameters: Mapping[str, Any],
) -> None:
    import time

    from mlflow.entities import Metric, Param

    hashes = ",".join(dict.fromkeys(row.protocol_hash for row in report.rows))
    tags = {ROLE: EVALUATION, MODEL_FOLDER: redact(str(model_folder)), PROTOCOLS: hashes}
    tags |= {f"{PROTOCOLS}.{protocol_name(result)}": result.protocol_hash for result in report.brierlm}
    tags |= {f"{PROTOCOLS}.{score.task}": score.protocol_hash for score in report.tasks}
    run = client.create_run(experiment, run_name=f"eval {report.model}"[:250], tags=tags).info.run_id
    state = "FAILED"
    try:
        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, number, now, 0) for row in report.rows for name, number in row.metrics.items()]
        texts = [Param(name, redact(str(value))[:6000]) for name, value in parameters.items()]
        for start in range(0, max(len(metrics), 1), 900):
            client.log_batch(run, metrics[start : start + 900], texts[:100] if not start else [], [])
        client.set_tag(run, "mlflow.source.name", "calm-bench eval")
        client.log_text(run, json.dumps(report.to_dict(), indent=2), "evaluation.json")
        if report.texts:
            client.log_text(run, as_markdown(report.texts), "samples.md")
        state = "FINISHED"
    finally:
        client.set_terminated(run, state)
