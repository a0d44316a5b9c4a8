"""The search of a study: its parameters, what is looked for and within which bounds, and who chooses trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from calm_bench.frozen import Frozen, PositiveInt


class Parameter(Frozen):
    """One dimension of a search: listed values, a range, or named bundles of settings."""

    name: str
    """A dotted path of the experiment (``values``, ``low``/``high``), or a free label (``choices``)."""
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: dict[str, dict[str, Any]] | None = None
    """Label -> settings by dotted path, applied together."""
    include: tuple[str, ...] | None = None
    """The choices to use; unset means all."""
    when: Annotated[dict[str, tuple[Any, ...]], Field(exclude_if=lambda when: not when)] = Field(default_factory=dict)
    """Parameter of :attr:`Search.each` -> its values with which this one is searched; unset means with all."""

    @model_validator(mode="after")
    def _exactly_one_form(self) -> Self:
        forms = [self.values is not None, self.low is not None and self.high is not None, self.choices is not None]
        if sum(forms) != 1:
            raise ValueError(f"search parameter {self.name!r} needs exactly one of values, low with high, or choices")
        for form in ("values", "choices", "include"):
            if getattr(self, form) in ((), {}):
                raise ValueError(f"search parameter {self.name!r}: {form} is empty, so there is nothing to choose from")
        self._check_range()
        if self.include is not None:
            unknown = [label for label in self.include if label not in (self.choices or {})]
            if unknown:
                raise ValueError(
                    f"search parameter {self.name!r} includes unknown choices {unknown}; "
                    f"there are {list(self.choices or {})}"
                )
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            return
        of = f"search parameter {self.name!r}"
        if self.low > self.high:
            raise ValueError(f"{of}: low ({self.low:g}) is larger than high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"{of}: a range on a logarithmic scale (log) begins above 0, and low is {self.low:g}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{of}: low and high must be whole numbers where integer is set")


NO_SCORES = frozenset(
    {"autoencoder_accuracy", "inference_flops_per_token", "parameters", "training_flops", "validation_loss"}
)
"""Metrics of a search that no score on the evaluation's text goes into. One from elsewhere may be such a score."""


Direction = Literal["maximize", "minimize"]
BETTER: Mapping[str, Direction] = {
    "brierlm": "maximize",
    "validation_loss": "minimize",
    "training_flops": "minimize",
    "inference_flops_per_token": "minimize",
    "parameters": "minimize",
}
"""Direction in which each metric of this project is better."""


class Objective(Frozen):
    """A number of every trial to be pushed up or down."""

    metric: str = "brierlm"
    """``brierlm``, ``validation_loss``, ``training_flops``, ``inference_flops_per_token``, ``parameters``, or one that
    a kind of stages from elsewhere tells (:mod:`pipelines.study.search_metrics`)."""
    direction: Direction = "maximize"
    """Unset means ``maximize`` for ``brierlm`` and ``minimize`` for losses and costs; a metric from elsewhere needs it
    (:func:`pipelines.study.search_metrics.check_search_metrics`)."""

    @model_validator(mode="before")
    @classmethod
    def _better_one(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "direction" not in given:
            known = BETTER.get(str(given.get("metric")))
            return given if known is None else {**given, "direction": known}
        return given

    @property
    def has_direction(self) -> bool:
        """Whether the direction was given or follows from the metric; else it is a guess."""
        return "direction" in self.model_fields_set or self.metric in BETTER

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}"


class Constraint(Frozen):
    """A bound that a trial should keep. One that breaks it is shown as such, and is no example to ``tpe``."""

    metric: str
    """One that can be an objective, or ``autoencoder_accuracy``: the share of held-out tokens that come back; a token
    model has none to break."""
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the constraint on {self.metric} needs exactly one of at_least and at_most")
        return self

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"{self.metric} >= {self.at_least:.6g}"
        return f"{self.metric} <= {self.at_most:.6g}"


class Search(Frozen):
    """Which experiments a study consists of."""

    sampler: Literal["grid", "tpe", "random"] = "grid"
    parameters: tuple[Parameter, ...] = ()
    num_trials: PositiveInt | None = None
    """Number of trials of ``tpe`` and ``random``; a grid has as many as it has points."""
    each: Annotated[tuple[str, ...], Field(exclude_if=lambda each: not each)] = ()
    """Names of parameters with listed values or choices. Each combination of these has a search of its own over the
    other parameters, of ``num_trials`` trials, so that all of them are tuned with equal effort."""
    concurrent_trials: PositiveInt = 4
    """How many trials ``tpe`` proposes beyond those whose results it knows. Part of the search and not of its
    execution: what the sampler knows decides what it proposes, whatever runs where."""
    fixed: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda fixed: not fixed)
    """Settings of every trial, over those of its own point: what a choice sets too is set to this instead."""
    objectives: tuple[Objective, ...] = (Objective(),)
    constraints: tuple[Constraint, ...] = ()
    pruner: Literal["none", "median", "halving"] = "none"
    """Stop language models that are worse, in validation loss at the same training FLOPs, than the median of the
    trials before them, or than the better half. Compared are trials whose losses mean the same:
    :mod:`pipelines.search.pruning` says which."""
    split: Annotated[Literal["validation", "test"] | None, Field(exclude_if=lambda split: split is None)] = None
    """The text on which trials are scored. Unset means ``evaluation.split``, but validation text where scores choose
    among the trials."""
    allow_test_objective: Annotated[bool, Field(exclude_if=lambda allowed: not allowed)] = False
    """Let scores on test text choose: they are too high then, and nothing is left to test with."""
    rungs: Annotated[int, Field(ge=1, le=16)] = 4
    """Where a pruner compares: at 1/2, 1/4, 1/8, ... of the base experiment's training FLOPs, so many of them."""

    @property
    def fixed_settings(self) -> dict[str, Any]:
        """:attr:`fixed` by dotted path."""
        return {path: value for name, part in self.fixed.items() for path, value in leaves(name, part)}

    @model_validator(mode="after")
    def _one_objective_to_prune_by(self) -> Self:
        if self.pruner != "none" and len(self.objectives) != 1:
            raise ValueError(
                f"pruner {self.pruner} needs one objective, not {len(self.objectives)}: a trial that is worse in one "
                "may be better in another (search.pruner=none)"
            )
        return self

    @property
    def chooses_by_score(self) -> bool:
        """Whether scores on held-out text decide which settings later trials try."""
        return self.sampler == "tpe" and not self.goes_by_costs

    @property
    def goes_by_costs(self) -> bool:
        """Whether objectives and constraints are numbers that no score on the evaluation's text goes into."""
        metrics = {objective.metric for objective in self.objectives} | {bound.metric for bound in self.constraints}
        return metrics <= NO_SCORES

    @model_validator(mode="after")
    def _each_is_listed(self) -> Self:
        listed = {p.name: tuple(p.choices or p.values or ()) for p in self.parameters if p.low is None}
        for name in self.each:
            if name not in listed:
                raise ValueError(
                    f"search.each: {name!r} is no parameter with choices or values; those are {list(listed)}"
                )
        for parameter in self.parameters:
            for name, values in parameter.when.items():
                if name not in self.each or parameter.name in self.each:
                    raise ValueError(
                        f"search parameter {parameter.name!r}: when names {name!r}, which is not in search.each"
                        if name not in self.each
                        else f"search parameter {parameter.name!r} is in search.each and cannot depend on another"
                    )
                if unknown := [value for value in values if value not in listed[name]]:
                    raise ValueError(
                        f"search parameter {parameter.name!r}: when {name!r} is one of {unknown}, but it is one of "
                        f"{list(listed[name])}"
                    )
        return self

    @model_validator(mode="after")
    def _sampler_fits_parameters(self) -> Self:
        if self.sampler == "grid":
            continuous = [p.name for p in self.parameters if p.low is not None]
            if continuous:
                raise ValueError(f"a grid needs listed values; {continuous} are ranges (use sampler: tpe)")
        elif self.num_trials is None:
            raise ValueError(f"sampler {self.sampler} needs num_trials")
        return self


def paths_set(search: Search) -> list[str]:
    """The dotted paths that the points of ``search`` set, those inside bundled mappings too."""
    found: list[str] = []
    for parameter in search.parameters:
        bundles: list[dict[str, Any]] = [{parameter.name: None}]
        if parameter.choices is not None:
            bundles = [parameter.choices[label] for label in parameter.include or parameter.choices]
        for settings in bundles:
            found += [path for key, value in settings.items() for path, _ in leaves(key, value)]
    return found + list(search.fixed_settings)


def leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    """The dotted paths that setting ``path`` to ``value`` sets, those inside a mapping each by itself, with values."""
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in leaves(f"{path}.{key}", inner)]
