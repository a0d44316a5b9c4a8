"""What a study will do and what it will cost, before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from calm_bench.config import Experiment
from pipelines.study.config import Study
from pipelines.study.equal_budget import Budget
from pipelines.study.price import Price, is_out_of_sight
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS, workloads_of
from pipelines.study.workload import Workload

StageState = Literal["cached", "begun", "new"]
"""``begun``: interrupted or running now, and continued from its last checkpoint."""


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
    num_to_run: int = 0
    """Trials that have not ended."""
    flops_to_run: float = 0.0
    """FLOPs of these, without shared autoencoders that are in the store already."""


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
    drawn_done: frozenset[Stage] = frozenset()
    """Stages in the store that several of ``drawn`` share. Others count as still to run: a trial that is to run may be
    like a drawn one, but is not it."""
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
    def out_of_sight(self) -> tuple[tuple[str, int], ...]:
        """Tokenizers of the hub that are not here, with the sizes that are taken for theirs, in order."""
        found = [
            (trial.experiment.tokens.tokenizer, trial.price.vocab_size)
            for trial in self._without_tokens
            if trial.experiment is not None and trial.price is not None and is_out_of_sight(trial.experiment.tokens)
        ]
        return tuple(dict.fromkeys(found))

    @property
    def _yet_to_be_trained(self) -> list[tuple[str, int, int]]:
        """Label, most entries and priced entries of each trial whose BPE is not there."""
        return [
            (trial.label, trial.experiment.tokens.vocab_size, trial.price.vocab_size)
            for trial in self._without_tokens
            if trial.experiment is not None and trial.price is not None
            if trial.experiment.tokens.tokenizer == "bpe"
        ]

    @property
    def _without_tokens(self) -> list[PlannedTrial]:
        """Trials that can run and whose tokens are not in the store."""
        done = {planned.stage for planned in self.stages if planned.state == "cached"}
        return [trial for trial in self.trials if trial.graph is not None and trial.graph["tokens"] not in done]

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
