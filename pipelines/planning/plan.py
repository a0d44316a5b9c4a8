"""What a study will do and what it will cost, before anything is launched."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.planning.budgets import BudgetRule, assumed_size, rule_for
from pipelines.planning.stage_costs import assumed_speed
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.study.equal_budget import Budget
from pipelines.study.graph import CorpusIdentity, stages_for
from pipelines.study.price import BYTES_VOCABULARY, Price, price_of
from pipelines.study.search_settings import Parameter, Search
from pipelines.study.space import grid_points, label_of, settings_at
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS, check_possible, workloads_of
from pipelines.study.strata import num_trials, strata
from pipelines.study.workload import Speed, Workload

StageState = Literal["cached", "begun", "new"]
"""``begun``: interrupted or running now, and continued from its last checkpoint."""

SAMPLED_POINTS = 200
"""Points of a search space that are priced where its trials are not known before it runs."""
MOST_DRAWN = 60
"""Trials of such a search that are played through; the time of a longer one goes by their number."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the study, with the trials that need it and the FLOPs of running it."""

    stage: Stage
    state: StageState
    trials: tuple[int, ...]
    flops: float

    @property
    def shared(self) -> bool:
        return len(self.trials) > 1


@dataclass(frozen=True)
class PlannedTrial:
    """A point of the search; ``error`` says why it cannot be run, and then it has neither stages nor price."""

    number: int
    label: str
    settings: Mapping[str, Any]
    graph: StageGraph | None = None
    price: Price | None = None
    error: str | None = None
    experiment: Experiment | None = None
    """As the trial trains it, the study's budget applied."""


@dataclass(frozen=True)
class PriceRange:
    """Training FLOPs of one trial over the points of a search space whose trials are chosen as it runs."""

    num_trials: int
    lowest: float
    median: float
    highest: float
    total: float = 0.0
    """FLOPs of a whole search drawn from the space, shared autoencoders once."""


@dataclass(frozen=True)
class Plan:
    """All that is known about a study beforehand.

    A grid's trials are all known. For ``tpe`` and ``random``, and where the best are trained again, what each search
    begins from stands in ``trials`` as an example and ``sampled`` holds the prices over the search space; ``drawn``
    are as many trials as the study will have, drawn evenly from the space.
    """

    study: Study
    trials: tuple[PlannedTrial, ...]
    stages: tuple[PlannedStage, ...]
    sampled: PriceRange | None = None
    drawn: tuple[PlannedTrial, ...] = ()
    budget: Budget | None = None
    """What is equal among the language models, with its amount; None where each is trained as configured."""

    @property
    def impossible(self) -> tuple[str, ...]:
        """The trials of a grid that cannot run, each with the reason; of a search they are known as they come."""
        if self.study.search.sampler != "grid":
            return ()
        return tuple(f"trial {one.number} ({one.label}): {one.error}" for one in self.trials if one.error is not None)

    @property
    def flops(self) -> float:
        """Training FLOPs of all stages of the listed trials, each stage once."""
        return sum(planned.flops for planned in self.stages)

    @property
    def flops_to_run(self) -> float:
        """The same without what is in the store already; a begun stage counts in full."""
        return sum(planned.flops for planned in self.stages if planned.state != "cached")

    @property
    def vocabulary_bounds(self) -> tuple[int, ...]:
        """Sizes that were assumed of vocabularies yet to be trained, each the most that it can get, ascending."""
        return tuple(sorted({asked for _, asked, priced in self._yet_to_be_trained if priced == asked}))

    @property
    def for_fewest_words(self) -> tuple[str, ...]:
        """Labels of trials whose budget does not pay for all the entries that their BPE may get."""
        return tuple(label for label, asked, priced in self._yet_to_be_trained if priced < asked)

    @property
    def _yet_to_be_trained(self) -> list[tuple[str, int, int]]:
        """Label, most entries and priced entries of each trial whose BPE is not there."""
        done = {planned.stage for planned in self.stages if planned.state == "cached"}
        return [
            (trial.label, trial.experiment.tokens.vocab_size, trial.price.vocab_size)
            for trial in self.trials
            if trial.graph is not None and trial.experiment is not None and trial.price is not None
            if trial.experiment.tokens.tokenizer == "bpe" and trial.graph["tokens"] not in done
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON of the plan: trials with their prices by part, stages with their states."""
        return {
            "study": self.study.name,
            "budget": None if self.budget is None else {"equal": self.budget.equal, "amount": self.budget.amount},
            "training_flops": self.flops,
            "training_flops_to_run": self.flops_to_run,
            "trials": [_trial_dict(trial) for trial in self.trials],
            "stages": [
                {
                    "kind": planned.stage.kind,
                    "identity": planned.stage.identity,
                    "label": str(planned.stage),
                    "state": planned.state,
                    "trials": list(planned.trials),
                    "training_flops": planned.flops,
                }
                for planned in self.stages
            ],
            "sampled": None if self.sampled is None else vars(self.sampled),
        }


def plan_study(study: Study, store: Store, speed_of: Callable[[Workload], Speed] | None = None) -> Plan:
    """Expand, price and look up every trial of ``study``; trains, downloads and writes nothing.

    Args:
        speed_of: by which ``budget: equal-time`` becomes steps, where the study has not been started; unset means
            what one CPU core is assumed to reach.

    Raises:
        ConfigurationError: the price cannot be told from the configuration.
        CorpusError: the corpus is unknown, unreadable, or not pinned.
    """
    # A local corpus is named by its content: read it once, not once a trial.
    corpus_identity = corpus_identity_in(store)
    folder = study_folder(study, store, corpus_identity)

    def size_of(experiment: Experiment) -> int:
        known = _known_vocab_size(stages_for(experiment, corpus_identity), store)
        return assumed_size(experiment) if known is None else known

    rule = rule_for(study, folder, speed_of or assumed_speed, writes=False, size_of=size_of)
    expand = _Expansion(study, store, rule, corpus_identity)
    is_known = study.search.sampler == "grid" and study.final is None
    points = _grid(study.search, study.name) if is_known else _examples(study.search)
    trials = [expand(*point) for point in points]
    stages = tuple(_stages(trials, store))
    if is_known:
        return Plan(study, tuple(trials), stages, budget=rule.budget)
    sampled, drawn = _sampled(study, expand)
    return Plan(study, tuple(trials), stages, sampled, drawn, rule.budget)


def _grid(search: Search, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Numbers, labels and settings of all trials: the first of each stratum, then the second of each."""
    parts = strata(search)
    points = {
        index + own * len(parts): {**stratum.chosen, **point}
        for index, stratum in enumerate(parts)
        for own, point in enumerate(grid_points(stratum.search))
    }
    for number, point in sorted(points.items()):
        yield number, label_of(search, point, name), settings_at(search, point)


def _examples(search: Search) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What the searches begin from, where their trials are known only as they run."""
    for index, stratum in enumerate(strata(search)):
        yield index, stratum.label or "base experiment", settings_at(search, stratum.chosen)


@dataclass(frozen=True)
class _Expansion:
    """From a point of the search to its trial."""

    study: Study
    store: Store
    rule: BudgetRule
    corpus_identity: CorpusIdentity

    def __call__(self, number: int, label: str, settings: Mapping[str, Any]) -> PlannedTrial:
        try:
            experiment, assumed = self.trained(settings)
        except ConfigurationError as error:
            return PlannedTrial(number, label, settings, error=str(error))
        graph = stages_for(experiment, self.corpus_identity)
        try:
            check_possible(graph.stages, self.study.execution, self.store.is_done)
        except ConfigurationError as error:
            return PlannedTrial(number, label, settings, error=str(error))
        price = price_of(experiment, _known_vocab_size(graph, self.store) or assumed)
        return PlannedTrial(number, label, settings, graph, price, experiment=experiment)

    def trained(self, settings: Mapping[str, Any]) -> tuple[Experiment, int | None]:
        """The experiment at ``settings`` with its length, and the vocabulary that this length is for, where it is not
        the one to be assumed: a budget that does not pay for all the entries that a BPE may get may pay for those that
        it finds, so the fewest decide whether it can be run.

        Raises:
            ConfigurationError: the budget does not pay for it.
        """
        wanted = apply_settings(self.study.experiment(), settings)
        try:
            return self.rule(wanted), None
        except ConfigurationError as error:
            graph = stages_for(wanted, self.corpus_identity)
            if wanted.tokens.tokenizer != "bpe" or _known_vocab_size(graph, self.store) is not None:
                raise
            fewest = replace(self.rule, size_of=lambda _: BYTES_VOCABULARY)
            try:
                return fewest(wanted), BYTES_VOCABULARY
            except ConfigurationError:
                raise error from None


def workloads_in(plan: Plan, only_to_run: bool = False) -> list[Workload]:
    """The models of a plan's trials, each once; of a search with unknown trials, also of points of its space.

    Args:
        only_to_run: leave out trials that are wholly in the store.
    """
    done = {planned.stage for planned in plan.stages if planned.state == "cached"}
    found: dict[str, Workload] = {}
    for trial in (*plan.trials, *plan.drawn):
        if trial.price is None or trial.experiment is None or trial.graph is None:
            continue
        if only_to_run and all(stage in done for stage in trial.graph.stages):
            continue
        for workload in workloads_of(trial.graph, trial.experiment, trial.price.vocab_size):
            found.setdefault(workload.identity, workload)
    return list(found.values())


def _stages(trials: list[PlannedTrial], store: Store) -> Iterator[PlannedStage]:
    users: dict[Stage, list[int]] = {}
    flops: dict[Stage, float] = {}
    for trial in trials:
        if trial.graph is None or trial.price is None:
            continue
        for stage in trial.graph.stages:
            users.setdefault(stage, []).append(trial.number)
            if stage not in flops:
                flops[stage] = STAGE_KINDS.get(stage.kind).flops(stage, trial.price.vocab_size)
    for stage, numbers in users.items():
        state: StageState = "new"
        if store.is_done(stage):
            state = "cached"
        elif store.is_started(stage):
            state = "begun"
        yield PlannedStage(stage, state, tuple(numbers), flops[stage])


def _known_vocab_size(graph: StageGraph, store: Store) -> int | None:
    tokens = graph["tokens"]
    return int(store.result(tokens)["vocab_size"]) if store.is_done(tokens) else None


def _sampled(study: Study, expand: _Expansion) -> tuple[PriceRange, tuple[PlannedTrial, ...]]:
    """Prices at points drawn evenly from the search space, and as many of the trials as the search will have.

    Impossible combinations are left out.

    Raises:
        ConfigurationError: not one of the points is a possible experiment.
    """
    chance = random.Random(0)
    search, wanted = study.search, num_trials(study)
    parts = strata(search)
    prices: list[float] = []
    drawn: list[PlannedTrial] = []
    error: ConfigurationError | None = None
    for index in range(SAMPLED_POINTS):
        stratum = parts[index % len(parts)]
        point = {**stratum.chosen, **{one.name: _draw(one, chance) for one in stratum.search.parameters}}
        settings = settings_at(search, point)
        if len(drawn) < min(wanted, MOST_DRAWN):
            trial = expand(len(drawn), label_of(search, point, study.name), settings)
            if trial.price is None:
                error = ConfigurationError(trial.error or "")
                continue
            drawn.append(trial)
            prices.append(trial.price.training_flops)
            continue
        try:
            prices.append(price_of(*expand.trained(settings)).training_flops)
        except ConfigurationError as refused:
            error = refused
    if not prices:
        raise ConfigurationError(f"no point of the search space is a possible experiment: {error}")
    total = sum(planned.flops for planned in _stages(drawn, expand.store)) * wanted / max(len(drawn), 1)
    prices.sort()
    return PriceRange(wanted, prices[0], prices[len(prices) // 2], prices[-1], total), tuple(drawn)


def _draw(parameter: Parameter, chance: random.Random) -> Any:
    if parameter.low is None or parameter.high is None:
        options = grid_points(Search(parameters=(parameter,)))
        return chance.choice(options)[parameter.name]
    if parameter.log:
        value = parameter.low * (parameter.high / parameter.low) ** chance.random()
    else:
        value = parameter.low + (parameter.high - parameter.low) * chance.random()
    return round(value) if parameter.integer else value


def _trial_dict(trial: PlannedTrial) -> dict[str, Any]:
    price = trial.price
    found: dict[str, Any] = {
        "number": trial.number,
        "label": trial.label,
        "settings": dict(trial.settings),
        "error": trial.error,
    }
    if price is None or trial.graph is None:
        return found
    trainings = {stage.kind: STAGE_KINDS.get(stage.kind).price(stage, price.vocab_size) for stage in trial.graph.stages}
    return found | {
        "vocab_size": price.vocab_size,
        "stages": {stage.kind: stage.identity for stage in trial.graph.stages},
        "training_flops": price.training_flops,
        "inference_flops_per_token": price.inference.total,
        "inference_flops_by_part": dict(price.inference.parts),
        "trainings": {
            name: {
                "parameters": training.parameters.total,
                "steps": training.steps,
                "tokens": training.tokens,
                "flops": training.flops.total,
                "flops_by_part": dict(training.flops.parts),
            }
            for name, training in trainings.items()
            if training is not None
        },
    }
