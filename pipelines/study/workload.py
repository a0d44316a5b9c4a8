"""What a stage's speed depends on: the sizes of a model and of its batches, not how long it is trained.

Each kind of stages that trains a model has a :class:`Workload` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from calm_bench.config import Experiment, Training
from calm_bench.fingerprint import identity

_OF_A_STEP = {"batch_size", "sequence_length", "gradient_accumulation", "precision"}


@dataclass(frozen=True)
class Speed:
    """Seconds of what stages do, over and over, with one model. Nothing is known of what is 0."""

    step: float
    """Seconds of an optimizer step."""
    validation_token: float
    """Seconds per held-out token of a validation."""
    reconstruction_token: float = 0.0
    """Seconds per token that an autoencoder reconstructs."""
    window: float = 0.0
    """Seconds per window of an evaluation."""
    texts: float = 0.0
    """Seconds of all texts that a language model writes as samples."""
    entropy_window: float = 0.0
    """Seconds per window whose cross-entropy is taken."""


@dataclass(frozen=True)
class Workload(ABC):
    """A model of an experiment with its batches and its vocabulary."""

    kind: ClassVar[str]
    """The kind of the stages that train it."""

    experiment: Experiment
    vocab_size: int

    @property
    @abstractmethod
    def label(self) -> str:
        """For people, as in ``autoencoder K=4``."""

    @property
    @abstractmethod
    def training(self) -> Training:
        """How it is trained, by the experiment."""

    @property
    @abstractmethod
    def work(self) -> Speed:
        """FLOPs in the place of seconds; those of scoring and sampling may be rough."""

    @property
    @abstractmethod
    def calls(self) -> Speed:
        """Seconds that the same takes however small the model is: thousands of calls from Python into torch."""

    @property
    @abstractmethod
    def content(self) -> dict[str, Any]:
        """JSON of all that decides the speed, beside the kind, K, the vocabulary and the batches."""

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that decides the speed."""
        return identity(
            {
                "kind": self.kind,
                "vocab_size": self.vocab_size,
                "chunk_size": self.experiment.model.chunk_size,
                "batches": self.training.model_dump(mode="json", include=_OF_A_STEP),
                **self.content,
            }
        )

    @property
    def is_token(self) -> bool:
        """Whether it is of a token model, which scores and writes in another way than a chunk model."""
        return not self.experiment.model.is_chunked

    @property
    def gpu_utilisation(self) -> float:
        """Share of a GPU's peak in bf16 that its training reaches, assumed until it is measured there.

        Four fifths of what a model of the kernels gives for the paper's sizes on an H100 where nothing is compiled
        (docs/gpu.md): no GPU was measured, compiled or not.
        """
        return 0.25

    @property
    def flops_per_step(self) -> float:
        """Training FLOPs of an optimizer step."""
        return self.work.step

    def speed_at(self, flops_per_second: float, scoring_flops_per_second: float) -> Speed:
        """What the FLOPs come to at a rate for training and one for scoring and sampling."""
        rates = dict.fromkeys(vars(self.work), scoring_flops_per_second) | {"step": flops_per_second}
        calls = vars(self.calls)
        return Speed(**{name: value / rates[name] + calls[name] for name, value in vars(self.work).items()})
