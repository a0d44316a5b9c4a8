"""What a study adds to an experiment: a search over experiments, how it runs and where it is tracked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from calm_bench.config import Experiment
from calm_bench.frozen import Frozen, NonNegativeInt, PositiveInt
from calm_bench.training_options import KEEP_CHECKPOINTS, TrainingOptions
from pipelines.study.equal_budget import parse_budget
from pipelines.study.tuned_by import TunedBy

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of studies, which are folders too."""
ANCHORS = "x-"
"""Beginning of keys of a study file that only hold what ``<<: *anchor`` puts elsewhere."""
LENGTHS = tuple(f"model.training.{name}" for name in ("num_steps", "num_tokens", "num_flops"))
"""Paths of an experiment that say how long its language model is trained."""


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


class Objective(Frozen):
    """A number of every trial to be pushed up or down."""

    metric: str = "brierlm"
    """``brierlm``, ``validation_loss``, ``training_flops``, ``inference_flops_per_token``, ``parameters``, or one that
    a kind of stages from elsewhere tells (:mod:`pipelines.study.search_metrics`)."""
    direction: Literal["maximize", "minimize"] = "maximize"


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
        metrics = {objective.metric for objective in self.objectives} | {bound.metric for bound in self.constraints}
        return self.sampler == "tpe" and not metrics <= NO_SCORES

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


class Final(Frozen):
    """What is done with the best trials of a search: they are trained again with fresh seeds and scored once, on text
    that chose nothing. The leaderboard then ranks these."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    split: Literal["validation", "test"] = "test"
    top: PositiveInt = 1
    """How many of each search, the best by its objective; with several objectives, of those that no other beats in
    all of them."""
    untuned: bool = True
    """Train what each search began from with the same seeds too: the difference is what tuning gained."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {list(seeds)} are not all different")
        return seeds


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


class Execution(Frozen):
    """How and where stages run; never part of an identity."""

    backend: Literal["ray", "local"] = "ray"
    address: str | None = None
    """Address of an existing Ray cluster; unset starts a private one."""
    workers: PositiveInt = 1
    """Processes that share one training, through Ray Train; each gets what the settings per stage say. Their number
    changes no result beyond the rounding of sums. Stages that are no trainings have one."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """What several workers hold of a language model: ``ddp`` all of it, ``fsdp`` a part of its weights, gradients and
    optimizer state each, for models that do not fit otherwise."""
    cpus_per_stage: Annotated[float, Field(gt=0)] = 1.0
    gpus_per_stage: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a stage, fractions too; for stages that gain from one."""
    max_parallel: PositiveInt | None = None
    """Stages at once; unset means as many as the resources allow."""
    memory_per_stage: Annotated[float, Field(gt=0)] | None = None
    """GiB that a stage declares to Ray, so that no more run on a node than fit; unset declares nothing."""
    retries: NonNegativeInt = 1
    """How often a stage is tried again, from its last checkpoint, that was let down by a worker, a node, a disk or a
    network. Then the trial is recorded as failed and the study goes on. What would fail again is not tried again."""
    keep_checkpoints: PositiveInt = KEEP_CHECKPOINTS
    """Newest checkpoints of a running training that are kept, beside the one of the lowest validation loss."""
    micro_batch: Annotated[Literal["auto"] | PositiveInt, Field(exclude_if=lambda rows: rows == "auto")] = "auto"
    """Sequences of a training that are computed at once, by each of its workers. ``auto`` is as many of a batch as the
    device's memory holds. It changes no result beyond the rounding of sums: ``gradient_accumulation`` of a training is
    for who wants it to be a part of what is trained."""
    activation_checkpointing: Annotated[bool, Field(exclude_if=lambda wanted: not wanted)] = False
    """Whether trainings of language models compute each layer again in the backward pass instead of keeping what it
    made: up to a third more time, for long contexts that do not fit otherwise. It changes no result."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    store: str = "runs"
    """Folder of all results, shared between hosts or not, or an address that fsspec can write to (``s3://bucket/path``).
    An address holds no credentials: they come from the environment."""
    optuna_storage: str | None = None
    """PostgreSQL database for the trials, ``postgresql://USER:PASSWORD@HOST/DATABASE``, where drivers share no folder
    that locks files; ``CALM_BENCH_OPTUNA_STORAGE`` is used where unset, then a journal in the store."""

    @property
    def training(self) -> TrainingOptions:
        """What a worker is told about how to train."""
        return TrainingOptions(self.keep_checkpoints, self.micro_batch, self.activation_checkpointing)

    @model_validator(mode="after")
    def _workers_share_no_gpu(self) -> Self:
        if self.workers > 1 and 0 < self.gpus_per_stage < 1:
            raise ValueError(
                f"workers={self.workers} with gpus_per_stage={self.gpus_per_stage:g}: workers of one training need a "
                "GPU each (gpus_per_stage=1), or none"
            )
        return self


class Tracking(Frozen):
    """Tracking in MLflow; ``MLFLOW_TRACKING_URI`` is used where ``uri`` is unset, then a file in the store."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "calm-bench"
    register_models: bool = True
    """Each scored model as a version in MLflow's model registry, under the study's name."""
    log_models: Annotated[bool, Field(exclude_if=lambda copied: not copied)] = False
    """Copy each scored model into MLflow; unset, MLflow refers to the store, where the weights stay."""


class Study(Experiment):
    """A search over experiments, with its execution."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str = ""
    budget: Annotated[str | None, Field(exclude_if=lambda budget: budget is None)] = None
    """``equal-flops``, ``equal-total-flops`` (the autoencoder's training is paid from it), ``equal-tokens`` or
    ``equal-time``: how long every language model is trained, whatever its K and head. The amount is what the base
    experiment's ``model.training`` pays for, or stands behind the word (``equal-tokens 5e6``, ``equal-time 10min``).
    Unset trains each as it is configured."""
    search: Search = Search()
    final: Annotated[Final | None, Field(exclude_if=lambda final: final is None)] = None
    """Fresh trainings of the search's best, scored on test text; unset ranks the trials of the search themselves."""
    tuned_by: Annotated[TunedBy | None, Field(exclude_if=lambda tuned_by: tuned_by is None)] = None
    """The search of another study that chose settings of this one; its rows then tell of the trials that were tried."""
    execution: Execution = Execution()
    tracking: Tracking = Tracking()

    @field_validator("budget")
    @classmethod
    def _budget_is_known(cls, budget: str | None) -> str | None:
        return None if budget is None else str(parse_budget(budget))

    @model_validator(mode="after")
    def _one_who_says_how_long(self) -> Self:
        if self.budget is None:
            return self
        for path in paths_set(self.search):
            if path in LENGTHS:
                raise ValueError(
                    f"the search sets {path}, which budget: {self.budget} decides for every trial: leave one of the "
                    "two out"
                )
        return self

    @model_validator(mode="after")
    def _final_text_chose_nothing(self) -> Self:
        if self.final is None:
            return self
        paths = paths_set(self.search)
        for path in ("seed", "evaluation.split"):
            if path in paths:
                raise ValueError(f"the search sets {path}, which final decides for the trials that it trains again")
        if self.seed in self.final.seeds:
            raise ValueError(f"final.seeds holds {self.seed}, the seed of the search: fresh seeds are others")
        if self.split == self.final.split:
            raise ValueError(
                f"final.split and search.split are both {self.split}: the best would be scored on the text that chose "
                "them"
            )
        return self

    @property
    def split(self) -> Literal["validation", "test"]:
        """The text that the trials of the search are scored on."""
        return self.search.split or ("validation" if self.final is not None else self.evaluation.split)

    def experiment(self) -> Experiment:
        """The base experiment, without search and execution."""
        parts = {name: getattr(self, name) for name in Experiment.model_fields}
        return Experiment(**parts | {"evaluation": self.evaluation.model_copy(update={"split": self.split})})
