"""What one stage takes, and what is known when a plan asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calm_bench.config import Experiment
from calm_bench.memory import Memory
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions
from pipelines.study.workload import Speed, Workload

if TYPE_CHECKING:
    from pipelines.study.price import Price

STAGE_S = 0.15
"""Seconds of every stage besides its work: handing it to a worker, hashing and flushing what it wrote."""
SMALL_FILES_BYTES = 8_000
"""Bytes of a stage's configuration, result, provenance and hashes, and of a small tokenizer."""


@dataclass(frozen=True)
class StageCost:
    """An estimate for one stage; None where the configuration does not tell."""

    seconds: float | None
    """On a worker, while as many stages run as run at once."""
    memory: Memory | None = None
    disk_bytes: float | None = None
    """What stays."""
    scratch_bytes: float = 0.0
    """What is there besides while it runs: checkpoints."""
    sequences: int | None = None
    """How many of a batch a training computes at once; None for other stages."""
    measured: bool = True
    """Whether the seconds rest on a measurement of this very model on the machine."""


UNKNOWN_COST = StageCost(None)
"""The cost of a stage of which nothing can be told beforehand."""


@dataclass(frozen=True)
class TextSizes:
    """Bytes and tokens by split; None where only reading the corpus would tell."""

    bytes_by_split: Mapping[str, float] | None
    tokens_by_split: Mapping[str, float] | None

    @property
    def num_bytes(self) -> float | None:
        return None if self.bytes_by_split is None else sum(self.bytes_by_split.values())

    @property
    def num_tokens(self) -> float | None:
        return None if self.tokens_by_split is None else sum(self.tokens_by_split.values())

    def tokens_of(self, split: str) -> float | None:
        return None if self.tokens_by_split is None else self.tokens_by_split.get(split, 0.0)


@dataclass(frozen=True)
class Workers:
    """The processes that share one training, and what each holds of it."""

    count: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    speedup: float = 1.0
    """How many times as fast as one process they make a step."""


@dataclass(frozen=True)
class CostContext:
    """What a stage may price itself by: the experiment that asks for it, its text, and the machine."""

    experiment: Experiment
    price: Price
    sizes: TextSizes
    workloads: Mapping[str, Workload]
    """The models that the experiment trains, by the kind of the stages that train them."""
    device: Literal["cpu", "cuda"]
    speed_of: Callable[[Workload], Speed]
    """The speed of a model on the machine: measured, scaled from the nearest that is, or assumed."""
    is_measured: Callable[[Workload], bool]
    workers: Workers = Workers()
    training: TrainingOptions = DEFAULT_OPTIONS
    memory_bytes: float | None = None
    """What a worker may use; None where nobody knows."""
    at_once: int = 1
    """Stages that run at once on the machine, and workers of one whose work is done in parts."""

    @property
    def vocab_size(self) -> int:
        return self.price.vocab_size

    @property
    def language_model(self) -> Workload:
        """The language model of the experiment."""
        return self.workloads["language_model"]

    @property
    def scored_windows(self) -> int:
        """Windows that an evaluation scores; all of the limit where the size of the text is not known."""
        evaluation = self.experiment.evaluation
        tokens = self.sizes.tokens_of(evaluation.split)
        there = None if tokens is None else int(tokens / evaluation.context_length)
        given = [count for count in (there, evaluation.max_windows) if count is not None]
        return min(given, default=0)
