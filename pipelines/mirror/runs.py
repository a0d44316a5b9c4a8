"""A study in MLflow: one parent run, one child run a trial, written so that writing again changes nothing.

Runs are found again by tags. Training metrics carry a cursor (the last step sent, by stage and split) and times that
follow from the files, so a batch that is sent twice is the same rows. A trial is marked when all of it has arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity as fingerprint
from calm_bench.study_config import Study
from pipelines.leaderboard.entry import Entry, entry_from
from pipelines.leaderboard.numbers import printable
from pipelines.mirror import client as names
from pipelines.mirror.address import masked
from pipelines.mirror.metrics import (
    TRAINED_KINDS,
    Line,
    metrics_of,
    parameters_of,
    probe_metrics,
    read_lines,
    row_metrics,
)
from pipelines.stages.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from pipelines.sweep.trial import TrialOutcome

T = TypeVar("T")

SENT = "calm_bench.sent"
COMPLETE = "calm_bench.complete"
DESCRIBED = "calm_bench.described"
ERROR = "calm_bench.error"
LEADERBOARD = "calm_bench.leaderboard"

READ_BESIDE_THE_ROW = (
    ("evaluation", "result.json"),
    ("samples", "samples.md"),
    ("benchmarks", "result.json"),
    ("trajectory", "result.json"),
)
"""Files of finished stages that become artifacts: protocols with errors and sample counts, and what a model writes."""

_METRICS_PER_BATCH = 900
"""MLflow takes 1000 metrics, parameters and tags in one request."""
_PARAMETERS_PER_BATCH = 100
_LONGEST_TAG = 8000


@dataclass
class Trial:
    """What is known of a trial and not yet in MLflow."""

    number: int
    label: str
    key: str
    experiment: Experiment | None
    stages: frozenset[Stage] = frozenset()
    lines: list[Line] = field(default_factory=list)
    outcome: TrialOutcome | None = None
    changed: bool = True


class StudyRuns:
    """The runs of one study in one experiment. Every method may raise what MLflow raises, and may then be repeated."""

    def __init__(self, client: MlflowClient, experiment_id: str, study: Study, identity: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._study = study
        self._identity = identity
        self._running: set[str] = set()
        self._parent = self._find_or_create_parent()
        self._children: dict[str, Run] = {
            run.data.tags[names.TRIAL_KEY]: run
            for run in names.runs(client, [experiment_id], role="trial", study_identity=identity)
            if names.TRIAL_KEY in run.data.tags
        }

    @property
    def parent_id(self) -> str:
        return str(self._parent.info.run_id)

    def is_reachable(self) -> bool:
        """Whether MLflow answers at all, to tell a refused write from an absent server."""
        try:
            self._client.get_experiment(self._experiment_id)
        except Exception:
            return False
        return True

    def push_trial(self, trial: Trial) -> None:
        """Send what is new of ``trial``; with its outcome, the row, the model, the data set and the end."""
        entry = None
        digest = ""
        if trial.outcome is not None:
            entry = entry_from(trial.outcome, self._study) if trial.outcome.state == "complete" else None
            digest = fingerprint(entry if entry is not None else [trial.outcome.state, trial.outcome.error])
        run = self._children.get(trial.key)
        if run is not None and digest and run.data.tags.get(COMPLETE) == digest:
            trial.lines.clear()
            return
        if run is None:
            run = self._create_child(trial)
        self._describe(run, trial)
        self._send(run, trial)
        if trial.outcome is None:
            self._set_running(run)
            return
        if entry is not None:
            self._send_entry(run, trial.outcome, entry)
            if ERROR in run.data.tags:
                self._client.delete_tag(run.info.run_id, ERROR)
        elif trial.outcome.error:
            self._tag(run, ERROR, masked(trial.outcome.error)[:_LONGEST_TAG])
        self._client.set_terminated(run.info.run_id, "FINISHED" if entry is not None else "FAILED")
        self._tag(run, COMPLETE, digest)

    def push_system(self, samples: list[tuple[int, dict[str, float]]]) -> None:
        """Samples as (milliseconds since 1970, values); their step is in seconds since the parent's start."""
        from mlflow.entities import Metric

        start = self._parent.info.start_time
        metrics = [
            Metric(name, value, when, max(0, when - start) // 1000)
            for when, values in samples
            for name, value in values.items()
        ]
        for batch in _chunks(metrics, _METRICS_PER_BATCH):
            self._client.log_batch(self.parent_id, metrics=batch)

    def set_working(self) -> None:
        """Show the study as running again, after an earlier end."""
        self._set_running(self._parent)

    def push_leaderboard(self, digest: str, text: str, files: Iterable[Path]) -> None:
        """Attach the leaderboard's files to the parent, and ``text`` (Markdown) as its description."""
        if self._parent.data.tags.get(LEADERBOARD) == digest:
            return
        for path in files:
            self._client.log_artifact(self.parent_id, str(path))
        note = f"{self._study.description}\n\n{text}".strip()
        if len(note) > _LONGEST_TAG:
            note = f"{self._study.description}\n\nThe leaderboard is in the artifact leaderboard.md.".strip()
        self._tag(self._parent, "mlflow.note.content", note[:_LONGEST_TAG])
        self._tag(self._parent, LEADERBOARD, digest)

    def end(self, status: str, open_trials: Iterable[Trial]) -> None:
        """Close the parent as ``status`` (FINISHED, FAILED, KILLED) and trials that were cut short as KILLED."""
        for trial in open_trials:
            run = self._children.get(trial.key)
            if run is not None and COMPLETE not in run.data.tags:
                self._client.set_terminated(run.info.run_id, "KILLED")
        # Reread: the status may have changed since this study's runs were looked up.
        if self._client.get_run(self.parent_id).info.status != status:
            self._client.set_terminated(self.parent_id, status)

    def _find_or_create_parent(self) -> Run:
        found = next(names.runs(self._client, [self._experiment_id], role="study", study_identity=self._identity), None)
        parent = found or self._client.create_run(
            self._experiment_id,
            run_name=self._study.name,
            tags={
                names.ROLE: "study",
                names.STUDY_NAME: self._study.name,
                names.STUDY_IDENTITY: self._identity,
                "mlflow.source.name": "calm-bench",
                "mlflow.note.content": self._study.description[:_LONGEST_TAG],
            },
        )
        if DESCRIBED not in parent.data.tags:
            text = yaml.safe_dump(self._study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            self._client.log_text(parent.info.run_id, masked(text), "study.yaml")
            self._tag(parent, DESCRIBED, "yes")
        return parent

    def _create_child(self, trial: Trial) -> Run:
        run = self._client.create_run(
            self._experiment_id,
            run_name=printable(trial.label)[:250] or f"trial {trial.number}",
            tags={
                "mlflow.parentRunId": self.parent_id,
                "mlflow.source.name": "calm-bench",
                names.ROLE: "trial",
                names.STUDY_NAME: self._study.name,
                names.STUDY_IDENTITY: self._identity,
                names.TRIAL_KEY: trial.key,
            },
        )
        self._children[trial.key] = run
        return run

    def _describe(self, run: Run, trial: Trial) -> None:
        if DESCRIBED in run.data.tags or trial.experiment is None:
            return
        from mlflow.entities import Param

        parameters = [Param(name, value[:6000]) for name, value in parameters_of(trial.experiment).items()]
        for batch in _chunks(parameters, _PARAMETERS_PER_BATCH):
            self._client.log_batch(run.info.run_id, params=batch)
        text = yaml.safe_dump(trial.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self._client.log_text(run.info.run_id, masked(text), "experiment.yaml")
        self._tag(run, DESCRIBED, "yes")

    def _send(self, run: Run, trial: Trial) -> None:
        """Training metrics after the cursor, in order; the cursor travels in the same request as what it counts."""
        from mlflow.entities import RunTag

        lines = list(trial.lines)
        if trial.outcome is not None:
            # The published file is the truth; it also has what was trained before this driver started.
            for kind in TRAINED_KINDS:
                if kind in trial.outcome.folders:
                    lines = [line for line in lines if line.kind != kind]
                    lines += read_lines(kind, trial.outcome.folders[kind])
        cursor: dict[str, int] = json.loads(run.data.tags.get(SENT, "{}"))
        batch: list[Metric] = []

        def log() -> None:
            tag = RunTag(SENT, json.dumps(cursor))
            self._client.log_batch(run.info.run_id, metrics=batch, tags=[tag])
            run.data.tags[SENT] = tag.value
            batch.clear()

        for line in lines:
            stream = f"{line.kind}/{line.split}"
            if line.step <= cursor.get(stream, -1):
                continue
            metrics = list(metrics_of(line, run.info.start_time))
            if batch and len(batch) + len(metrics) > _METRICS_PER_BATCH:
                log()
            batch += metrics
            cursor[stream] = line.step
        if batch:
            log()
        trial.lines.clear()

    def _send_entry(self, run: Run, outcome: TrialOutcome, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

        assert outcome.experiment is not None  # entry_from has refused an outcome without one
        corpus = outcome.experiment.corpus
        run_id = run.info.run_id
        source = json.dumps({"source": masked(corpus.source), "subset": corpus.subset, "revision": corpus.revision})
        # MLflow takes 36 characters of a digest.
        dataset = Dataset(masked(corpus.source)[-500:], entry.corpus_digest[:32], "calm-bench corpus", source)
        tags = [InputTag("mlflow.data.context", "training and evaluation")]
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])

        for kind, name in READ_BESIDE_THE_ROW:
            if kind in outcome.folders and (outcome.folders[kind] / name).is_file():
                self._client.log_artifact(run_id, str(outcome.folders[kind] / name), kind)
        model_id = self._model_id(run, entry)
        when = run.info.start_time
        probes = outcome.results.get("autoencoder", {}).get("probes", {})
        self._client.log_batch(run_id, metrics=list(probe_metrics(probes, when)))
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, when, 0, model_id, dataset.name, dataset.digest, run_id)
                for name, value in row_metrics(entry).items()
            ],
            tags=[
                RunTag(names.ENTRY, entry.model_dump_json()),
                RunTag("calm_bench.protocol_hash", entry.protocol_hash),
                RunTag("calm_bench.decode_mode", entry.decode_mode),
            ],
        )

    def _model_id(self, run: Run, entry: Entry) -> str:
        """The logged model of a run: found, or created without copying its weights out of the store."""
        from mlflow.entities import LoggedModelOutput

        run_id = run.info.run_id
        found = self._client.search_logged_models([self._experiment_id], f"source_run_id = '{run_id}'")
        if found:
            model = found[0]
        else:
            model = self._client.create_logged_model(
                self._experiment_id,
                name="".join(c if c not in "/:.%\"'" else "_" for c in printable(entry.label))[:250] or "model",
                source_run_id=run_id,
                model_type=entry.family,
                params={"parameters": str(entry.parameters), "tokens": str(entry.tokens), "seed": str(entry.seed)},
                tags={
                    "mlflow.model.isExternal": "true",
                    "calm_bench.model_identity": entry.model_identity,
                    "calm_bench.model_folder": entry.model_folder,
                    "calm_bench.protocol_hash": entry.protocol_hash,
                },
            )
        if str(model.status) != "READY":
            self._client.finalize_logged_model(model.model_id, "READY")
        outputs = self._client.get_run(run_id).outputs
        if outputs is None or not outputs.model_outputs:
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        return str(model.model_id)

    def _set_running(self, run: Run) -> None:
        if run.info.run_id not in self._running and run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._running.add(run.info.run_id)

    def _tag(self, run: Run, name: str, value: str) -> None:
        self._client.set_tag(run.info.run_id, name, value)
        run.data.tags[name] = value


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
