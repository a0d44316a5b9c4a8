"""Makes the plan of a study: its trials, their stages and prices, and samples of a search that chooses as it runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.planning.budgets import BudgetRule, assumed_size, rule_for
from pipelines.planning.plan import Plan, PlannedStage, PlannedTrial, PriceRange, StageState
from pipelines.planning.stage_costs import assumed_speed
from pipelines.planning.trials_to_run import trials_to_run
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.trial_record import TrialRecord
from pipelines.study.config import Study
from pipelines.study.graph import CorpusIdentity, stages_for
from pipelines.study.named_content import named_content
from pipelines.study.price import BYTES_VOCABULARY, price_of
from pipelines.study.search_settings import Parameter, Search
from pipelines.study.space import grid_points, label_of, settings_at
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS, check_possible
from pipelines.study.strata import num_trials, strata
from pipelines.study.workload import Speed, Workload

SAMPLED_POINTS = 200
"""Points of a search space that are priced where its trials are not known before it runs."""
MOST_DRAWN = 60
"""Trials of such a search that are played through; the time of a longer one goes by their number."""


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
    # Only what a study names, and does not hold, makes other trials of those that it lists.
    is_current = expand.is_current if named_content(study) is not None else lambda record: True
    sampled, drawn, done = _sampled(study, expand, trials_to_run(study, folder, is_current))
    return Plan(study, tuple(trials), stages, sampled, drawn, done, rule.budget)


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
            check_possible(graph.stages, self.study.execution, self.store.is_done, self.store.folder)
        except ConfigurationError as error:
            return PlannedTrial(number, label, settings, error=str(error))
        price = price_of(experiment, _known_vocab_size(graph, self.store) or assumed)
        return PlannedTrial(number, label, settings, graph, price, experiment=experiment)

    def is_current(self, record: TrialRecord) -> bool:
        """Whether the stages of a trial that is listed are what they would be now."""
        graph = self(record.number, record.label, record.settings).graph
        return record.stages == {stage.kind: stage.identity for stage in (graph.stages if graph else ())}

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


def _sampled(
    study: Study, expand: _Expansion, num_to_run: int
) -> tuple[PriceRange, tuple[PlannedTrial, ...], frozenset[Stage]]:
    """Prices at points drawn evenly from the search space, as many of the trials as the search will have, and what
    these share that is in the store.

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
    stages = list(_stages(drawn, expand.store))
    done = frozenset(planned.stage for planned in stages if planned.shared and planned.state == "cached")
    total = sum(planned.flops for planned in stages) * wanted / max(len(drawn), 1)
    to_run = sum(planned.flops for planned in stages if planned.stage not in done) * num_to_run / max(len(drawn), 1)
    prices.sort()
    found = PriceRange(wanted, prices[0], prices[len(prices) // 2], prices[-1], total, num_to_run, to_run)
    return found, tuple(drawn), done


def _draw(parameter: Parameter, chance: random.Random) -> Any:
    if parameter.low is None or parameter.high is None:
        options = grid_points(Search(parameters=(parameter,)))
        return chance.choice(options)[parameter.name]
    if parameter.log:
        value = parameter.low * (parameter.high / parameter.low) ** chance.random()
    else:
        value = parameter.low + (parameter.high - parameter.low) * chance.random()
    return round(value) if parameter.integer else value
