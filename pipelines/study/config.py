"""What a study adds to an experiment: a search over experiments, how it runs and where it is tracked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from calm_bench.config import Experiment
from calm_bench.frozen import Frozen, NonNegativeInt, PositiveInt
from calm_bench.training_options import KEEP_CHECKPOINTS, TrainingOptions
from pipelines.study.equal_budget import parse_budget
from pipelines.study.search_settings import Search, paths_set
from pipelines.study.tuned_by import TunedBy

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of studies, which are folders too."""
ANCHORS = "x-"
"""Beginning of keys of a study file that only hold what ``<<: *anchor`` puts elsewhere."""
LENGTHS = tuple(f"model.training.{name}" for name in ("num_steps", "num_tokens", "num_flops"))
"""Paths of an experiment that say how long its language model is trained."""


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
