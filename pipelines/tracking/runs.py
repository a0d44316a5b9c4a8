"""A study in MLflow: one parent run, one child run a trial, written so that writing again changes nothing.

Runs are found again by tags. Training metrics carry a cursor (:mod:`pipelines.tracking.metric_streams`) and times that
follow from the files, so a batch that is sent twice is the same rows. A trial is marked when all of it has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from calm_bench.fingerprint import file_digest
from calm_bench.fingerprint import identity as fingerprint
from pipelines.common.numbers import printable
from pipelines.common.redact import redact
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.study_record import STUDY_FILE
from pipelines.study.config import Study
from pipelines.tracking import tags as tag_names
from pipelines.tracking.client import runs
from pipelines.tracking.description import LONGEST, end_note, study_head, study_note
from pipelines.tracking.known_run import KnownRun
from pipelines.tracking.metric_streams import MetricStreams
from pipelines.tracking.metrics import parameters_of
from pipelines.tracking.registry import Registry
from pipelines.tracking.results import provenance_of, push_result
from pipelines.tracking.settings import LONGEST_SETTING, PARAMETERS_PER_BATCH, write_settings
from pipelines.tracking.study_files import WRITTEN_AS, Trial, TrialEnd
from pipelines.tracking.system_metrics import Sample
from pipelines.tracking.system_samples import push_samples
from pipelines.tracking.times import trial_end, trial_start

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_NOTE = "mlflow.note.content"
"""Tag: what MLflow shows as a run's description."""
_AS_DESCRIBED = "3"
"""Beginning of :data:`pipelines.tracking.tags.DESCRIBED` on a study; raised when more is written there."""

_TRIAL = "trial"
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "invalid": "FAILED", "pruned": "KILLED"}


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
        self._streams = MetricStreams(progress)
        self._parent = self._find_or_create_parent()
        self._children: dict[str, KnownRun] = {}
        self._former = {
            key: known
            for run in runs(client, [experiment_id], role=tag_names.FORMER, study_identity=identity)
            if (key := (known := KnownRun.of(client, run)).tags.get(tag_names.TRIAL_KEY)) is not None
        }
        """Runs of trials that the study had and may have again."""
        for role in (_TRIAL, tag_names.SEARCH):
            for run in runs(client, [experiment_id], role=role, study_identity=identity):
                self._know(KnownRun.of(self._client, run))

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
        run = self._children.get(trial.key) or self._take_back(trial)
        if run is not None and end is not None and run.tags.get(tag_names.COMPLETE) == self._mark(end):
            return
        if run is not None and end is None and run.tags.get(tag_names.STATE) == "complete":
            # Told once more by a driver that is about to find it done.
            return
        if run is None:
            start = trial_start(trial.stages, self._start)
            if start is None and end is None:
                return
            run = self._create_child(trial, self._start if start is None else start)
        self._describe(run, trial)
        self._streams.send(run, trial)
        if end is None:
            if is_running:
                # A failed trial is tried again, and may fail in the same way.
                run.untag(tag_names.COMPLETE)
                run.set_running()
            return
        ended = trial_end(trial.stages, run.start)
        if end.entry is not None:
            assert trial.experiment is not None  # a row is made of one
            corpus = trial.experiment.corpus
            copy_model = self._study.tracking.log_models
            model = push_result(self._client, self.experiment_id, run.run_id, corpus, end.entry, end, ended, copy_model)
            self._registry.push(run.run_id, model, end.entry)
            self._retire_former(trial)
        self._tag_end(run, end)
        run.set_ended(_STATUS[end.state], ended)
        run.tag(tag_names.COMPLETE, self._mark(end))
        self.forget(trial)
        self._progress()

    def set_roles(self, trials: Sequence[Trial]) -> set[int]:
        """Mark the trials of the search as such once there is a final one, from which on they are no rows any more;
        the numbers of those of which MLflow had it otherwise."""
        ended = [trial for trial in trials if trial.end is not None and trial.end.entry is not None]
        searched = tag_names.SEARCH if any(trial.role != "search" for trial in ended) else _TRIAL
        changed = set()
        for trial in trials:
            role = searched if trial.role == "search" else _TRIAL
            run = self._children.get(trial.key)
            if run is not None and run.tags.get(tag_names.ROLE) != role:
                run.tag(tag_names.ROLE, role)
                changed.add(trial.number)
                self._progress()
        return changed

    def retire_others(self, trials: Iterable[Trial]) -> None:
        """Mark the runs of what is none of ``trials``, which are all that the study has, as former ones: of final
        trials with other seeds or of another selection, of a trial that was tried again."""
        keys = {trial.key for trial in trials}
        for key in [key for key in self._children if key not in keys]:
            self._retire(key)
            self._progress()

    def _mark(self, end: TrialEnd) -> str:
        """What a run is tagged with when all of ``end`` has arrived, the copy of its model too where one is wanted."""
        return f"{end.digest} with model" if self._study.tracking.log_models and end.entry is not None else end.digest

    def forget(self, trial: Trial) -> None:
        """Read the trial's logs from their start the next time; what has arrived is not sent again."""
        self._streams.forget(trial)

    def push_system(self, samples: Iterable[Sample]) -> None:
        """Send the samples of the machine that have not arrived.

        Args:
            samples: all of a log, in the order in which they were written.
        """
        push_samples(self._client, self._parent, samples, self._progress)

    def set_working(self) -> None:
        """Show the study as running again, after an earlier end."""
        self._parent.set_running()

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
        if self._parent.tags.get(tag_names.LEADERBOARD) == digest:
            return
        self._push_best(leaderboard)
        for path in paths:
            self._client.log_artifact(self.parent_id, str(path))
            self._progress()
        rows = [trial.end.folders for trial in trials if trial.end is not None and trial.end.entry is not None]
        note = study_note(self._study, leaderboard, provenance_of(rows[0] if rows else {}))
        self._parent.tag(_NOTE, note)
        self._parent.tag(tag_names.LEADERBOARD, digest)

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
            tags=[RunTag(tag_names.BEST_TRIAL, printable(best.label)[:250])],
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
            if trial.end is None and tag_names.COMPLETE not in run.tags:
                run.set_ended("KILLED", ended)
        self._parent.set_ended(status, last)

    def _know(self, run: KnownRun) -> None:
        """Know a child that is there already; of two for one trial, made by a request whose answer was lost, one."""
        key = run.tags.get(tag_names.TRIAL_KEY)
        if key is None:
            return
        known = self._children.get(key)
        if known is None:
            self._children[key] = run
            return
        keep, drop = (
            (run, known) if tag_names.COMPLETE in run.tags and tag_names.COMPLETE not in known.tags else (known, run)
        )
        self._children[key] = keep
        self._client.delete_run(drop.run_id)

    def _find_or_create_parent(self) -> KnownRun:
        found = next(runs(self._client, [self.experiment_id], role="study", study_identity=self._identity), None)
        if found is None:
            tags = {tag_names.ROLE: "study", _NOTE: study_head(self._study)}
            found = self._client.create_run(
                self.experiment_id, self._start, self._tags_of_all() | tags, run_name=self._study.name
            )
        parent = KnownRun.of(self._client, found)
        self._start = parent.start
        configuration = _study_yaml(self._study)
        described = f"{_AS_DESCRIBED} {fingerprint(configuration)}"
        if parent.tags.get(tag_names.DESCRIBED) != described:
            write_settings(self._client, parent.run_id, self._study)
            for name, value in self._tags_of_all().items():
                self._client.set_tag(parent.run_id, name, value)
            self._client.log_text(parent.run_id, configuration, STUDY_FILE)
            parent.tag(tag_names.DESCRIBED, described)
        return parent

    def _create_child(self, trial: Trial, start: int) -> KnownRun:
        tags = {"mlflow.parentRunId": self.parent_id, tag_names.ROLE: _TRIAL, tag_names.TRIAL_KEY: trial.key}
        name = printable(trial.label)[:250] or f"trial {trial.number}"
        run = self._client.create_run(self.experiment_id, start, self._tags_of_all() | tags, run_name=name)
        self._children[trial.key] = KnownRun.of(self._client, run)
        return self._children[trial.key]

    def _tags_of_all(self) -> dict[str, str]:
        return {
            "mlflow.source.name": "calm-bench",
            tag_names.STUDY_NAME: self._study.name,
            tag_names.STUDY_IDENTITY: self._identity,
            **({"mlflow.user": self._owner} if self._owner else {}),
        }

    def _describe(self, run: KnownRun, trial: Trial) -> None:
        if tag_names.DESCRIBED in run.tags or trial.experiment is None:
            return
        import yaml
        from mlflow.entities import Param

        parameters = [Param(name, value[:LONGEST_SETTING]) for name, value in parameters_of(trial.experiment).items()]
        for batch in _chunks(parameters, PARAMETERS_PER_BATCH):
            self._client.log_batch(run.run_id, params=batch)
        text = yaml.safe_dump(trial.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self._client.log_text(run.run_id, redact(text), "experiment.yaml")
        run.tag(tag_names.DESCRIBED, "yes")

    def _tag_end(self, run: KnownRun, end: TrialEnd) -> None:
        run.tag(tag_names.STATE, end.state)
        if end.error:
            run.tag(_NOTE, end_note(end.state, end.error))
        for name, value in ((tag_names.ERROR, end.error), (tag_names.VIOLATIONS, ", ".join(end.violations))):
            if value:
                run.tag(name, redact(value)[:LONGEST])
            else:
                run.untag(name)

    def _retire_former(self, trial: Trial) -> None:
        """A trial's result by older code is a row no more, as it is none in the files.

        Where final trials follow those of the search, a longer search has their numbers: they are rows until it is
        known which ones there are now (:meth:`retire_others`).
        """
        if self._study.final is not None:
            return
        for key in list(self._children):
            if key != trial.key and key.partition("/")[0] == str(trial.number):
                self._retire(key)

    def _retire(self, key: str) -> None:
        run = self._former[key] = self._children.pop(key)
        run.tag(tag_names.ROLE, tag_names.FORMER)
        self._registry.quarantine(run.run_id)

    def _take_back(self, trial: Trial) -> KnownRun | None:
        """The run of a trial that the study had before, to be completed as any other; None where there is none."""
        run = self._former.pop(trial.key, None)
        if run is not None:
            run.untag(tag_names.COMPLETE)
            run.untag(tag_names.STATE)
            run.tag(tag_names.ROLE, _TRIAL)
            self._children[trial.key] = run
        return run


def _study_yaml(study: Study) -> str:
    from pipelines.store.study_record import resolved_yaml

    return redact(resolved_yaml(study))


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
