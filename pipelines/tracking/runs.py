"""A study in MLflow: one parent run, one child run a trial, written so that writing again changes nothing.

Runs are found again by tags. Training metrics carry a cursor (the last step sent, by stage and split) and times that
follow from the files, so a batch that is sent twice is the same rows. A trial is marked when all of it has arrived.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from calm_bench.fingerprint import file_digest
from calm_bench.fingerprint import identity as fingerprint
from pipelines.common.numbers import printable
from pipelines.common.redact import redact
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.metrics_log import MetricsTail
from pipelines.store.study_record import STUDY_FILE
from pipelines.study.config import Study
from pipelines.study.stage_kind import streams_metrics
from pipelines.tracking import client as names
from pipelines.tracking.description import LONGEST, end_note, study_head, study_note
from pipelines.tracking.metrics import metrics_of, overrides_of, parameters_of
from pipelines.tracking.registry import Registry
from pipelines.tracking.results import provenance_of, push_result
from pipelines.tracking.study_files import WRITTEN_AS, Trial, TrialEnd
from pipelines.tracking.system_metrics import Sample
from pipelines.tracking.times import StagePlace, trial_end, trial_start

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

SENT = "calm_bench.sent"
"""Tag: the last step that has arrived, by stage and split; on the parent, the samples of the machine that have."""
COMPLETE = "calm_bench.complete"
DESCRIBED = "calm_bench.described"
ERROR = "calm_bench.error"
STATE = "calm_bench.state"
LEADERBOARD = "calm_bench.leaderboard"

VIOLATIONS = "calm_bench.violations"
BEST_TRIAL = "calm_bench.best"
"""Tag of a study: the label of the trial that leads its leaderboard."""
_NOTE = "mlflow.note.content"
"""Tag: what MLflow shows as a run's description."""
_AS_DESCRIBED = "2"
"""Value of :data:`DESCRIBED` on a study; raised when more is written there."""

_OWN_TAGS = (names.TRIAL_KEY, SENT, COMPLETE, DESCRIBED, ERROR, STATE, LEADERBOARD, VIOLATIONS)
"""The tags by which it is known what has arrived."""
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "invalid": "FAILED", "pruned": "KILLED"}
_METRICS_PER_BATCH = 900
"""MLflow takes 1000 metrics, parameters and tags in one request."""
_PARAMETERS_PER_BATCH = 100


@dataclass
class _KnownRun:
    """What is needed of a run; with its parameters and metrics, those of thousands would fill the memory."""

    run_id: str
    start: int
    status: str
    end: int | None
    tags: dict[str, str]

    @classmethod
    def of(cls, run: Run) -> _KnownRun:
        tags = {name: run.data.tags[name] for name in _OWN_TAGS if name in run.data.tags}
        return cls(run.info.run_id, run.info.start_time, run.info.status, run.info.end_time, tags)


class StudyRuns:
    """The runs of one study in one experiment. Every method may raise what MLflow raises, and may then be repeated
    by a new object, which looks first at what has arrived.

    Args:
        start: of the study, in milliseconds since 1970.
        owner: who ran it, where that is known.
        progress: called after each part that has arrived.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        study: Study,
        identity: str,
        start: int,
        owner: str | None,
        progress: Callable[[], None],
    ) -> None:
        self.experiment_id = experiment_id
        self._client = client
        self._study = study
        self._identity = identity
        self._start = start
        self._owner = owner
        self._progress = progress
        self._registry = Registry(client, experiment_id, study, identity)
        self._logs: dict[tuple[str, str], MetricsTail] = {}
        """By trial and kind of stage."""
        self._parent = self._find_or_create_parent()
        self._children: dict[str, _KnownRun] = {}
        for run in names.runs(client, [experiment_id], role="trial", study_identity=identity):
            self._know(_KnownRun.of(run))

    @property
    def parent_id(self) -> str:
        return str(self._parent.run_id)

    @property
    def children(self) -> dict[int, str]:
        """Run by number of the trial."""
        return {int(key.partition("/")[0]): str(run.run_id) for key, run in self._children.items()}

    @property
    def unregistered(self) -> str | None:
        """Why models are not registered, where MLflow does not take them."""
        return self._registry.refusal

    def is_reachable(self) -> bool:
        """Whether MLflow answers at all, to tell a refused write from an absent server."""
        try:
            self._client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def push_trial(self, trial: Trial, is_running: bool) -> None:
        """Send what is new of ``trial``; with its end, the row, the model, the data set and the state.

        Of a trial that has neither begun to train nor ended there is nothing to show.

        Args:
            is_running: a trial that has not ended is under way.
        """
        end = trial.end
        run = self._children.get(trial.key)
        if run is not None and end is not None and run.tags.get(COMPLETE) == end.digest:
            return
        if run is not None and end is None and run.tags.get(STATE) == "complete":
            # Told once more by a driver that is about to find it done.
            return
        if run is None:
            start = trial_start(trial.stages, self._start)
            if start is None and end is None:
                return
            run = self._create_child(trial, self._start if start is None else start)
        self._describe(run, trial)
        self._send(run, trial)
        if end is None:
            if is_running:
                if run.tags.pop(COMPLETE, None) is not None:
                    # A failed trial is tried again, and may fail in the same way.
                    self._client.delete_tag(run.run_id, COMPLETE)
                self._set_running(run)
            return
        ended = trial_end(trial.stages, run.start)
        if end.entry is not None:
            assert trial.experiment is not None  # a row is made of one
            corpus = trial.experiment.corpus
            model = push_result(self._client, self.experiment_id, run.run_id, corpus, end.entry, end, ended)
            self._registry.push(run.run_id, model, end.entry)
            self._retire_former(trial)
        self._tag_end(run, end)
        self._set_ended(run, _STATUS[end.state], ended)
        self._tag(run, COMPLETE, end.digest)
        self.forget(trial)
        self._progress()

    def forget(self, trial: Trial) -> None:
        """Read the trial's logs from their start the next time; what has arrived is not sent again."""
        for kind in trial.stages:
            self._logs.pop((trial.key, kind), None)

    def push_system(self, samples: Iterable[Sample]) -> None:
        """Send the samples of the machine that have not arrived; their step is in seconds since the study's start."""
        from mlflow.entities import Metric, RunTag

        sent = int(self._parent.tags.get(SENT, "0"))
        new = [sample for sample in samples if sample.time > sent]
        for batch in _chunks(new, _METRICS_PER_BATCH // max([1, *(len(sample.values) for sample in new)])):
            metrics = [
                Metric(name, value, sample.time, max(0, sample.time - self._start) // 1000)
                for sample in batch
                for name, value in sample.values.items()
            ]
            tag = RunTag(SENT, str(batch[-1].time))
            self._client.log_batch(self.parent_id, metrics=metrics, tags=[tag])
            self._parent.tags[SENT] = tag.value
            self._progress()

    def set_working(self) -> None:
        """Show the study as running again, after an earlier end."""
        self._set_running(self._parent)

    def push_leaderboard(self, leaderboard: Leaderboard, files: Iterable[Path], trials: Iterable[Trial]) -> None:
        """Attach the leaderboard's ``files`` to the parent, and the leaderboard as its description; name the best."""
        self._registry.name_best(leaderboard, self.children)
        paths = list(files)
        digest = fingerprint(
            [
                WRITTEN_AS,
                leaderboard.to_json(),
                {path.name: file_digest(path) for path in paths},
                self._study.description,
            ]
        )
        if self._parent.tags.get(LEADERBOARD) == digest:
            return
        self._push_best(leaderboard)
        for path in paths:
            self._client.log_artifact(self.parent_id, str(path))
            self._progress()
        rows = [trial.end.folders for trial in trials if trial.end is not None and trial.end.entry is not None]
        note = study_note(self._study, leaderboard, provenance_of(rows[0] if rows else {}))
        self._tag(self._parent, _NOTE, note)
        self._tag(self._parent, LEADERBOARD, digest)

    def _push_best(self, leaderboard: Leaderboard) -> None:
        """The score that leads the leaderboard, of the first protocol where there are several."""
        from mlflow.entities import Metric, RunTag

        if not leaderboard.groups:
            return
        best = leaderboard.groups[0].entries[0]
        known = [run for key, run in self._children.items() if key.partition("/")[0] == str(best.trial)]
        run = known[-1] if known else self._parent
        when = run.end or run.start
        values = {"best_brierlm": best.brierlm, "error/best_brierlm": best.brierlm_se}
        self._client.log_batch(
            self.parent_id,
            metrics=[Metric(name, value, when, 0) for name, value in values.items()],
            tags=[RunTag(BEST_TRIAL, printable(best.label)[:250])],
        )

    def end(self, status: str, trials: Iterable[Trial]) -> None:
        """Close the parent as ``status`` (FINISHED, FAILED, KILLED), and trials that have not ended as KILLED."""
        last = self._start
        for trial in trials:
            run = self._children.get(trial.key)
            if run is None:
                continue
            ended = trial_end(trial.stages, run.start)
            last = max(last, ended)
            if trial.end is None and COMPLETE not in run.tags:
                self._set_ended(run, "KILLED", ended)
        self._set_ended(self._parent, status, last)

    def _know(self, run: _KnownRun) -> None:
        """Know a child that is there already; of two for one trial, made by a request whose answer was lost, one."""
        key = run.tags.get(names.TRIAL_KEY)
        if key is None:
            return
        known = self._children.get(key)
        if known is None:
            self._children[key] = run
            return
        keep, drop = (run, known) if COMPLETE in run.tags and COMPLETE not in known.tags else (known, run)
        self._children[key] = keep
        self._client.delete_run(drop.run_id)

    def _find_or_create_parent(self) -> _KnownRun:
        found = next(names.runs(self._client, [self.experiment_id], role="study", study_identity=self._identity), None)
        if found is None:
            tags = {names.ROLE: "study", _NOTE: study_head(self._study)}
            found = self._client.create_run(
                self.experiment_id, self._start, self._tags_of_all() | tags, run_name=self._study.name
            )
        parent = _KnownRun.of(found)
        self._start = parent.start
        if parent.tags.get(DESCRIBED) != _AS_DESCRIBED:
            from mlflow.entities import Param

            parameters = [Param(name, value[:6000]) for name, value in overrides_of(self._study).items()]
            for batch in _chunks(parameters, _PARAMETERS_PER_BATCH):
                self._client.log_batch(parent.run_id, params=batch)
            for name, value in self._tags_of_all().items():
                self._client.set_tag(parent.run_id, name, value)
            self._client.log_text(parent.run_id, _study_yaml(self._study), STUDY_FILE)
            self._tag(parent, DESCRIBED, _AS_DESCRIBED)
        return parent

    def _create_child(self, trial: Trial, start: int) -> _KnownRun:
        tags = {"mlflow.parentRunId": self.parent_id, names.ROLE: "trial", names.TRIAL_KEY: trial.key}
        name = printable(trial.label)[:250] or f"trial {trial.number}"
        run = self._client.create_run(self.experiment_id, start, self._tags_of_all() | tags, run_name=name)
        self._children[trial.key] = _KnownRun.of(run)
        return self._children[trial.key]

    def _tags_of_all(self) -> dict[str, str]:
        return {
            "mlflow.source.name": "calm-bench",
            names.STUDY_NAME: self._study.name,
            names.STUDY_IDENTITY: self._identity,
            **({"mlflow.user": self._owner} if self._owner else {}),
        }

    def _describe(self, run: _KnownRun, trial: Trial) -> None:
        if DESCRIBED in run.tags or trial.experiment is None:
            return
        import yaml
        from mlflow.entities import Param

        parameters = [Param(name, value[:6000]) for name, value in parameters_of(trial.experiment).items()]
        for batch in _chunks(parameters, _PARAMETERS_PER_BATCH):
            self._client.log_batch(run.run_id, params=batch)
        text = yaml.safe_dump(trial.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self._client.log_text(run.run_id, redact(text), "experiment.yaml")
        self._tag(run, DESCRIBED, "yes")

    def _send(self, run: _KnownRun, trial: Trial) -> None:
        """Training metrics after the cursor, in order; the cursor travels in the same request as what it counts."""
        from mlflow.entities import RunTag

        cursor: dict[str, int] = json.loads(run.tags.get(SENT, "{}"))
        batch: list[Metric] = []

        def log() -> None:
            tag = RunTag(SENT, json.dumps(cursor))
            self._client.log_batch(run.run_id, metrics=batch, tags=[tag])
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
                if batch and len(batch) + len(metrics) > _METRICS_PER_BATCH:
                    log()
                batch += metrics
                cursor[stream] = line.step
        if batch:
            log()

    def _log(self, key: str, place: StagePlace) -> MetricsTail:
        """What grows of a stage's log."""
        if (key, place.kind) not in self._logs:
            self._logs[key, place.kind] = MetricsTail(place.kind, (place.work, place.finished))
        return self._logs[key, place.kind]

    def _tag_end(self, run: _KnownRun, end: TrialEnd) -> None:
        self._tag(run, STATE, end.state)
        if end.error:
            self._tag(run, _NOTE, end_note(end.state, end.error))
        for name, value in ((ERROR, end.error), (VIOLATIONS, ", ".join(end.violations))):
            if value:
                self._tag(run, name, redact(value)[:LONGEST])
            elif name in run.tags:
                self._client.delete_tag(run.run_id, name)

    def _retire_former(self, trial: Trial) -> None:
        """A trial's result by older code is a row no more, as it is none in the files."""
        for key, run in self._children.items():
            if key != trial.key and key.partition("/")[0] == str(trial.number):
                self._tag(run, names.ROLE, names.FORMER)
                self._registry.quarantine(run.run_id)

    def _set_running(self, run: _KnownRun) -> None:
        if run.status != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"

    def _set_ended(self, run: _KnownRun, status: str, end: int) -> None:
        if (run.status, run.end) != (status, end):
            self._client.set_terminated(run.run_id, status, end)
            run.status, run.end = status, end

    def _tag(self, run: _KnownRun, name: str, value: str) -> None:
        self._client.set_tag(run.run_id, name, value)
        run.tags[name] = value


def _study_yaml(study: Study) -> str:
    from pipelines.store.study_record import resolved_yaml

    return redact(resolved_yaml(study))


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
