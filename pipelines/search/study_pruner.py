"""The pruners of a study: one for each of its searches, whose trials are compared with each other and no others."""

from __future__ import annotations

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.execution.events import Event
from pipelines.planning.budgets import BudgetRule
from pipelines.search.pruning import Pruner
from pipelines.search.study_queue import StudyTrial
from pipelines.study.config import Study
from pipelines.study.price import price_of
from pipelines.study.space import settings_at
from pipelines.study.stage import StageGraph
from pipelines.study.strata import strata


class StudyPruner:
    """Judges the trials of ``study``, but for the final ones, which all run to their end. A listener, as
    :class:`~pipelines.search.pruning.Pruner`, whose rungs are shares of what the settings that a search begins from
    are trained with.

    Args:
        rule: from an experiment to the one that is trained.
    """

    def __init__(self, study: Study, rule: BudgetRule) -> None:
        self._pruners = {}
        for stratum in strata(study.search):
            start = rule(apply_settings(study.experiment(), settings_at(study.search, stratum.chosen)))
            self._pruners[stratum.label] = Pruner(study.search, price_of(start, rule.size_of(start)).model.flops.total)
        self._of: dict[int, Pruner] = {}

    def add(self, trial: StudyTrial, experiment: Experiment, graph: StageGraph) -> None:
        """Let a trial take part; of one search in the order of their numbers."""
        if trial.role != "search":
            return
        pruner = self._of[trial.number] = self._pruners[trial.stratum]
        if trial.state == "open":
            pruner.add(trial.number, experiment, graph)
        else:
            pruner.add_ended(trial.number, experiment, graph, trial.rungs, trial.state == "pruned")

    def end(self, number: int) -> None:
        """A trial failed: it will reach no further rung."""
        if number in self._of:
            self._of[number].end(number)

    def handle(self, event: Event) -> None:
        for pruner in self._pruners.values():
            pruner.handle(event)

    def judge(self) -> None:
        """Judge every trial at every rung for which all that it is compared with is known."""
        for pruner in self._pruners.values():
            pruner.judge()

    def verdict(self, number: int) -> str | None:
        """Why a trial is pruned; None while it is not."""
        return self._of[number].verdict(number) if number in self._of else None

    def is_judged(self, number: int) -> bool:
        """Whether nothing that is still to come can prune a trial."""
        return number not in self._of or self._of[number].is_judged(number)

    def losses(self, number: int) -> dict[int, float]:
        """A trial's loss by rung, up to the one at which it was pruned."""
        return self._of[number].losses(number) if number in self._of else {}
