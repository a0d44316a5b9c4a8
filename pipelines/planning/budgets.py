"""The budget word of a study, turned into each trial's own training length.

``equal-flops`` and ``equal-tokens`` follow from the configuration alone. ``equal-time`` depends on the machine: how
many steps each model takes in the time is measured when the study first starts and kept in its folder, so that a
resumed study trains the very same stages, wherever it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_json
from calm_bench.config import Experiment
from calm_bench.flops import training_steps
from calm_bench.json_text import parse_json_text
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.store.file_lock import locked
from pipelines.study.config import Study
from pipelines.study.equal_budget import Budget
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload
from pipelines.study.kinds.training_cost import steps_within, training_seconds
from pipelines.study.price import assumed_vocab_size, price_of
from pipelines.study.stated_budget import budget_of
from pipelines.study.workload import Speed, Workload

RESOLVED = "budget.json"
"""In the study's folder: the steps that ``equal-time`` came to."""

StepsFor = Callable[[Workload, float], int]
"""How many steps a model takes in so many seconds."""

SizeOf = Callable[[Experiment], int]
"""The size of the vocabulary that an experiment's models have."""

TRAINING = "model.training"


def assumed_size(experiment: Experiment) -> int:
    """What the configuration lets assume; of a BPE that is yet to be trained, the most that it can get."""
    return assumed_vocab_size(experiment.tokens)


@dataclass(frozen=True)
class BudgetRule:
    """Gives every language model of a study the same budget; one without a word leaves each what it is configured."""

    budget: Budget | None
    """With its amount."""
    steps_for: StepsFor | None = None
    size_of: SizeOf = assumed_size

    def __call__(self, experiment: Experiment) -> Experiment:
        """``experiment`` with the length of its language model's training set.

        Raises:
            ConfigurationError: the budget pays for no more steps than the warm-up has, or less than the autoencoder.
        """
        if self.budget is None:
            return experiment
        found = apply_settings(experiment, {f"{TRAINING}.{name}": value for name, value in self._length(experiment)})
        self._check(found)
        return found

    def _length(self, experiment: Experiment) -> list[tuple[str, float | int]]:
        budget = self.budget
        assert budget is not None
        assert budget.amount is not None
        if budget.equal == "flops":
            return [("num_flops", budget.amount)]
        if budget.equal == "tokens":
            return [("num_tokens", budget.amount)]
        if budget.equal == "time":
            assert self.steps_for is not None
            workload = LanguageModelWorkload(experiment, self.size_of(experiment))
            return [("num_steps", self.steps_for(workload, budget.amount))]
        price = price_of(experiment, self.size_of(experiment))
        spent = 0.0 if price.autoencoder is None else price.autoencoder.flops.total
        if spent >= budget.amount:
            raise ConfigurationError(
                f"budget: {budget} does not pay for the autoencoder, whose training takes {spent:.3g} FLOPs: raise it, "
                "shorten autoencoder.training, or use equal-flops, which leaves autoencoders out"
            )
        return [("num_flops", budget.amount - spent)]

    def _check(self, experiment: Experiment) -> None:
        training = experiment.model.training
        steps = training_steps(training, _flops_per_token(experiment, self.size_of(experiment)))
        if steps <= training.warmup_steps:
            raise ConfigurationError(
                f"budget: {self.budget} pays for {steps:,} steps of {training.batch_size * training.sequence_length:,} "
                f"tokens, but {TRAINING}.warmup_steps is {training.warmup_steps}: raise the budget or shorten the "
                "warm-up"
            )


class ResolvedTime:
    """The steps of ``equal-time`` by model, kept in the file ``budget.json`` of a study's folder.

    Args:
        steps_for: asked for models that the file does not have.
        writes: whether the answers are kept; a plan only looks.
    """

    def __init__(self, folder: Path, budget: Budget, steps_for: StepsFor, writes: bool) -> None:
        self._path = folder / RESOLVED
        self._budget = budget
        self._steps_for = steps_for
        self._writes = writes

    @property
    def seconds(self) -> float | None:
        """The amount that the study's first start fixed, if it was started."""
        found = self._read().get("seconds")
        return float(found) if isinstance(found, int | float) else None

    def keep_seconds(self, seconds: float) -> float:
        """Fix the amount, unless another start did so before; returns the one that holds."""
        if not self._writes:
            return self.seconds or seconds
        with locked(self._guard):
            known = self.seconds
            if known is None:
                write_json(self._path, {"budget": f"equal-{self._budget.equal}", "seconds": seconds, "steps": {}})
            return seconds if known is None else known

    def __call__(self, workload: Workload, seconds: float) -> int:
        known = self._steps(workload)
        if known is not None:
            return known
        steps = self._steps_for(workload, seconds)
        if not self._writes:
            return steps
        with locked(self._guard):
            known = self._steps(workload)
            if known is not None:
                return known
            content = self._read() or {"budget": f"equal-{self._budget.equal}", "seconds": seconds}
            entries = dict(content.get("steps", {}))
            entries[workload.identity] = {"label": workload.label, "steps": steps}
            write_json(self._path, {**content, "steps": entries})
        return steps

    @property
    def _guard(self) -> Path:
        return self._path.with_name(f".{RESOLVED}.lock")

    def _steps(self, workload: Workload) -> int | None:
        entries = self._read().get("steps")
        entry = entries.get(workload.identity) if isinstance(entries, Mapping) else None
        return int(entry["steps"]) if isinstance(entry, Mapping) and entry.get("steps") else None

    def _read(self) -> dict[str, Any]:
        try:
            content = parse_json_text(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            # To measure anew would train other models than those that are there.
            raise ConfigurationError(
                f"{self._path} is damaged ({error}): it holds the steps that this study's equal-time came to"
            ) from error
        return content if isinstance(content, dict) else {}


def rule_for(
    study: Study,
    folder: Path,
    speed_of: Callable[[Workload], Speed],
    writes: bool,
    size_of: SizeOf = assumed_size,
) -> BudgetRule:
    """The rule by which the trials of ``study`` get their lengths.

    Args:
        folder: of the study in the store.
        speed_of: asked under ``equal-time`` for the models that the folder does not know yet.
        writes: whether what ``equal-time`` comes to is kept in the folder from now on.
        size_of: asked for vocabularies; one that looks into finished tokens gives budgets that are exact.

    Raises:
        ConfigurationError: the price of the base experiment cannot be told, or the folder's file is damaged.
    """
    if study.budget is None:
        return BudgetRule(None)
    base = study.experiment()
    budget = budget_of(study, size_of(base))
    assert budget is not None
    if budget.equal != "time":
        return BudgetRule(budget, size_of=size_of)
    resolved = ResolvedTime(
        folder, budget, lambda workload, s: steps_within(s, workload.training, speed_of(workload)), writes
    )
    seconds = resolved.seconds
    if seconds is None:
        seconds = resolved.keep_seconds(budget.amount or _base_seconds(base, speed_of, size_of(base)))
    return BudgetRule(replace(budget, amount=seconds), resolved, size_of)


def _base_seconds(experiment: Experiment, speed_of: Callable[[Workload], Speed], vocab_size: int) -> float:
    workload = LanguageModelWorkload(experiment, vocab_size)
    return round(training_seconds(price_of(experiment, vocab_size).model, workload.training, speed_of(workload)), 1)


def _flops_per_token(experiment: Experiment, vocab_size: int) -> float:
    price = price_of(experiment, vocab_size)
    return price.model.flops.total / price.model.tokens
