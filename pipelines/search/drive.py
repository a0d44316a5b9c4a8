"""Run a study: trials from the search, stages from the trials, results back to the search."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from calm_bench.config import Experiment
from calm_bench.errors import StopRequested
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.execution.events import (
    Listener,
    Listeners,
    StudyFinished,
    StudyStarted,
    StudyStopping,
    TrialFailed,
    TrialFinished,
    TrialsCounted,
    TrialStarted,
)
from pipelines.execution.executor import Executor
from pipelines.execution.interrupt import polite_stop
from pipelines.execution.scheduler import Scheduler
from pipelines.planning.budgets import BudgetRule, rule_for
from pipelines.planning.stage_costs import assumed_speed
from pipelines.search.objectives import constraint_excesses, objective_values, violations
from pipelines.search.selection import select
from pipelines.search.study_pruner import StudyPruner
from pipelines.search.study_queue import StudyQueue, StudyTrial
from pipelines.search.trial_queue import TrialResult
from pipelines.search.trial_storage import trial_storage, unused_trials
from pipelines.search.vocabularies import TokensFailed, Vocabularies
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.place import keeping_store
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.study_record import save_study
from pipelines.store.trial_record import TrialRecord, forget_earlier, keep_earlier, save_trials
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.identity import study_identity
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import check_possible
from pipelines.study.trial import TrialOutcome
from pipelines.study.workload import Speed, Workload

WRITES_SHARE = 20
"""Time between two writes of ``trials.json``, in the time that one takes."""

GraphFor = Callable[[Experiment], StageGraph]


class StudyInterrupted(StopRequested):
    """The study was stopped before its end; the message says how to go on."""


def run_study(
    study: Study,
    store: Store,
    executor: Executor,
    listener: Listener | None = None,
    *,
    graph_for: GraphFor | None = None,
    retry_failed: bool = False,
    announce: Callable[[str], None] | None = None,
    speed_of: Callable[[Workload], Speed] = assumed_speed,
) -> list[TrialOutcome]:
    """Bring every trial of ``study`` to its end, and return them by number.

    What the store holds is not computed again: a finished study asks and trains nothing. Trials that a killed driver
    left running are taken up. A trial that fails is recorded and the others go on.

    Args:
        graph_for: the stages of an experiment; other than :func:`pipelines.study.graph.stages_for` elsewhere.
        retry_failed: run trials again that failed in an earlier run.
        announce: told at once, in a thread of its own, by what the study was asked to stop.
        speed_of: by which ``budget: equal-time`` becomes steps, once, when a model's first trial begins.

    Raises:
        StudyInterrupted: Ctrl-C, SIGTERM or SIGHUP; stages saved their state.
        ExecutorError: stages cannot be run as configured.
        PostgresqlError: the trials are kept in a database that cannot be used.
        CorpusError, ConfigurationError: the base experiment itself cannot be described.
        FolderGone: somebody moved or removed the store; nothing is made at its old place.
    """
    with keeping_store(store):
        return _run_study(study, store, executor, listener, graph_for, retry_failed, announce, speed_of)


def _run_study(
    study: Study,
    store: Store,
    executor: Executor,
    listener: Listener | None,
    graph_for: GraphFor | None,
    retry_failed: bool,
    announce: Callable[[str], None] | None,
    speed_of: Callable[[Workload], Speed],
) -> list[TrialOutcome]:
    corpus_identity = corpus_identity_in(store)
    graph_for = graph_for or functools.partial(stages_for, corpus_identity=corpus_identity)
    name = study_identity(study, corpus_identity)
    folder = study_folder(study, store, corpus_identity)
    storage = trial_storage(study.execution, folder, study.name)
    with (
        store.studies.open(folder.name, storage.place()),
        closing(StudyQueue(storage, study, retry_failed)) as queue,
        polite_stop(announce) as request,
    ):
        if (unused := unused_trials(storage, folder)) is not None:
            print(unused, file=sys.stderr, flush=True)
        save_study(folder, study)
        if study.final is not None:
            keep_earlier(folder)
        told = listener or Listeners()
        num_trials = queue.num_trials
        told.handle(StudyStarted(study.name, name, folder, num_trials, study.search.objectives))
        first = Scheduler(store, executor, told, study.execution.retries, lambda: bool(request))
        vocabularies = Vocabularies(store, graph_for, first, lambda: bool(request))
        rule = rule_for(study, folder, speed_of, writes=True, size_of=vocabularies)
        run = _Run(study, store, executor, told, folder, graph_for, queue, rule, lambda: bool(request))
        stopping = False
        while True:
            if request and not stopping:
                stopping = True
                run.listener.handle(StudyStopping(str(request.reason)))
                run.scheduler.stop()
            if not stopping:
                run.start_new_trials()
                run.write_trials()
                run.scheduler.submit()
            if stopping and run.scheduler.is_idle:
                break
            if not run.open:
                if stopping or not run.begin_final():
                    break
                num_trials = queue.num_trials
                continue
            run.scheduler.wait()
            run.finish_trials()
            run.write_trials()
        run.write_trials(is_last=True)
    # Also where all trials had ended by then: who wants it gone does not want to wait for tables and pictures.
    if request:
        raise StudyInterrupted(
            f"stopped by {request.reason}: {len(run.outcomes)} of {num_trials} trials have ended, and what the "
            f"others had reached is kept in {store.uri}. The same command goes on from there."
        )
    outcomes = sorted(run.outcomes.values(), key=lambda outcome: outcome.number)
    run.listener.handle(StudyFinished(tuple(outcomes)))
    return outcomes


@dataclass(frozen=True)
class _Open:
    """A trial that is under way."""

    asked: StudyTrial
    outcome: TrialOutcome
    graph: StageGraph


class _Run:
    """One call of :func:`run_study`."""

    def __init__(
        self,
        study: Study,
        store: Store,
        executor: Executor,
        listener: Listener,
        folder: Path,
        graph_for: GraphFor,
        queue: StudyQueue,
        rule: BudgetRule,
        stop_asked: Callable[[], bool],
    ) -> None:
        self.study = study
        self.store = store
        self.pruner = None
        if study.search.pruner != "none":
            self.pruner = StudyPruner(study, rule)
            listener = Listeners([self.pruner, listener])
        self.listener = listener
        self.folder = folder
        self.graph_for = graph_for
        self.queue = queue
        self.rule = rule
        self.scheduler = Scheduler(store, executor, listener, study.execution.retries, stop_asked)
        self.open: dict[int, _Open] = {}
        self.outcomes: dict[int, TrialOutcome] = {}
        self._base = study.experiment()
        self._folders: dict[Stage, Path] = {}
        """Folders of finished stages, with their small files at least."""
        self._changed = True
        self._has_new = False
        self._next_write = 0.0
        self._seen_ended = -1

    def start_new_trials(self) -> None:
        """Start what the search proposes; cached and invalid trials end here and may bring further proposals."""
        while new := self.queue.new_trials():
            for asked in new:
                self._start(asked)
            begun = [self.open[asked.number].graph for asked in new if asked.number in self.open]
            # Those that are elsewhere come together, not trial by trial.
            self._folders |= self.store.summaries({stage for graph in begun for stage in graph.stages})
            self._changed = self._has_new = True
            self._seen_ended = -1
            self.finish_trials()

    def begin_final(self) -> bool:
        """Select what is trained again and ask for its trials, once the search has ended; whether there are any."""
        if self.study.final is None or self.queue.has_final:
            return False
        selected = select(self.study, list(self.outcomes.values()))
        self.queue.add_final(selected)
        self.listener.handle(TrialsCounted(self.queue.num_trials))
        return bool(selected)

    def _start(self, asked: StudyTrial) -> None:
        """Describe a trial's stages and queue those that are not done; or record why there are none."""
        settings, label = asked.settings, asked.label
        outcome = TrialOutcome(asked.number, label, settings, "complete", role=asked.role, stratum=asked.stratum)
        try:
            experiment = self.rule(apply_settings(self._base, settings))
            graph = self.graph_for(experiment)
        except TokensFailed as error:
            self._fail(asked, replace(outcome, state="failed", error=str(error)))
            return
        except ValueError as error:
            # Only settings can be at fault here: the base experiment was valid before the study began.
            self._fail(asked, replace(outcome, state="invalid", error=str(error)))
            return
        outcome = replace(outcome, experiment=experiment, graph=graph)
        if self.pruner is not None:
            self.pruner.add(asked, experiment, graph)
        if asked.state in ("failed", "pruned"):
            self._fail(asked, self._with_results(replace(outcome, state=asked.state, error=asked.error)))
            return
        try:
            check_possible(graph.stages, self.study.execution, self.store.is_done, self.store.folder)
        except ConfigurationError as error:
            self._fail(asked, replace(outcome, state="invalid", error=str(error)))
            return
        self.listener.handle(TrialStarted(asked.number, label, settings, graph))
        cached = self.scheduler.add(graph)
        self.open[asked.number] = _Open(asked, replace(outcome, cached=cached), graph)

    def finish_trials(self) -> None:
        """Close the trials whose stages are all done, of which one failed, or that are pruned."""
        if self.pruner is not None:
            for number, trial in self.open.items():
                if self.scheduler.failure(trial.graph) is not None:
                    self.pruner.end(number)
            self.pruner.judge()
        elif self._seen_ended == self.scheduler.num_ended:
            # Only what has ended can end a trial, and to look at thousands of them every second is work too.
            return
        self._seen_ended = self.scheduler.num_ended
        for number, trial in list(self.open.items()):
            error = self.scheduler.failure(trial.graph)
            verdict = self.pruner.verdict(number) if self.pruner is not None and trial.asked.state == "open" else None
            if error is not None:
                self._close(number, replace(trial.outcome, state="failed", error=error))
            elif verdict is not None:
                self._close(number, replace(trial.outcome, state="pruned", error=verdict))
            elif self._is_judged(trial) and all(stage in self.scheduler.results for stage in trial.graph.stages):
                del self.open[number]
                self._complete(trial)

    def write_trials(self, is_last: bool = False) -> None:
        """Write ``trials.json``: what the study consists of, for people and for tools without Optuna.

        Before a stage is begun it is listed there, so that ``calm-bench store gc`` knows who needs it. That a trial
        has ended may stand there a little later.
        """
        if not self._changed or (not is_last and not self._has_new and monotonic() < self._next_write):
            return
        self._changed = self._has_new = False
        began = monotonic()
        ended = {number: TrialRecord.of(outcome, outcome.state) for number, outcome in self.outcomes.items()}
        under_way = {number: TrialRecord.of(trial.outcome, "open") for number, trial in self.open.items()}
        save_trials(self.folder, [record for _, record in sorted((under_way | ended).items())])
        if self.queue.has_final:
            forget_earlier(self.folder)
        self.store.studies.save(self.folder.name)
        # All trials are written for each that ends: of thousands, several at once.
        self._next_write = monotonic() + WRITES_SHARE * (monotonic() - began)

    def _close(self, number: int, outcome: TrialOutcome) -> None:
        """End a trial before its last stage, and stop what only it needed."""
        trial = self.open.pop(number)
        self.scheduler.drop(keep=[other.graph for other in self.open.values()])
        self._fail(trial.asked, self._with_results(outcome))

    def _complete(self, trial: _Open) -> None:
        search = self.study.search
        outcome = self._with_results(trial.outcome)
        values = objective_values(search.objectives, outcome.results)
        broken = violations(search.constraints, outcome.results)
        outcome = replace(outcome, values=values, violations=broken)
        self.outcomes[outcome.number] = outcome
        if trial.asked.state == "open":
            excesses = constraint_excesses(search.constraints, outcome.results)
            constraints = {str(constraint): excess for constraint, excess in excesses.items()}
            told = TrialResult(values, constraints=constraints, rungs=self._rungs(outcome.number))
            self.queue.tell(outcome.number, told)
        self._changed = True
        self.listener.handle(TrialFinished(outcome))

    def _fail(self, asked: StudyTrial, outcome: TrialOutcome) -> None:
        self.outcomes[outcome.number] = outcome
        if asked.state == "open":
            told = TrialResult(
                error=outcome.error,
                pruned=outcome.state == "pruned",
                invalid=outcome.state == "invalid",
                rungs=self._rungs(outcome.number),
            )
            self.queue.tell(outcome.number, told)
        self._changed = True
        self.listener.handle(TrialFailed(outcome))

    def _is_judged(self, trial: _Open) -> bool:
        """Whether the pruner is done with a trial."""
        return self.pruner is None or trial.asked.state != "open" or self.pruner.is_judged(trial.asked.number)

    def _rungs(self, number: int) -> dict[int, float]:
        return {} if self.pruner is None else self.pruner.losses(number)

    def _folder(self, stage: Stage) -> Path:
        """The folder of a finished stage, with its small files at least."""
        if stage not in self._folders:
            self._folders |= self.store.summaries([stage])
        return self._folders.get(stage, self.store.folder(stage))

    def _with_results(self, outcome: TrialOutcome) -> TrialOutcome:
        """``outcome`` with what its stages have reached."""
        results: dict[str, dict[str, Any]] = {}
        folders: dict[str, Path] = {}
        addresses: dict[str, str] = {}
        for stage in outcome.graph.stages if outcome.graph else ():
            # Trials that share a stage share its result.
            known = self.scheduler.results.get(stage)
            if known is not None or self.store.is_done(stage):
                results[stage.kind] = self.store.result(stage) if known is None else known
                folders[stage.kind] = self._folder(stage)
                addresses[stage.kind] = self.store.address(stage)
        return replace(outcome, results=results, folders=folders, addresses=addresses)
