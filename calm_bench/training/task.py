"""What is trained, what became of it, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from calm_bench.errors import RunError, StopRequested

Loss = Callable[[Tensor, Generator], tuple[Tensor, dict[str, Tensor]]]
"""From token ids [B, L] and noise to a mean and other means by name."""


class TrainingError(RunError, RuntimeError):
    """A training that cannot go on."""


class NonFiniteLoss(TrainingError):
    """The loss or its gradient became NaN or infinite."""

    input_explains = False


class Diverged(TrainingError):
    """The loss rose far above where it began."""

    input_explains = False


class Interrupted(StopRequested):
    """The training was asked to stop, and saved a checkpoint to go on from."""


class Batches(Protocol):
    """An endless source of token batches [B, L] with a state that can be saved."""

    def take(self, rows: Tensor) -> Tensor:
        """The rows of the next batch with these numbers, Long [r], as [r, L]."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingTask:
    """What is trained: a module, its loss on a batch, its scores on held-out windows, and its price.

    Validation reads ``held_out`` in micro-batches, as a step does, so it needs less memory than training.
    """

    module: nn.Module
    loss: Loss
    scores: Loss
    """Loss and other scores of held-out windows, means over them."""
    held_out: Tensor
    """[windows, L], on the CPU."""
    flops_per_token: float
    """Training FLOPs per token, forward and backward."""
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of parameters whose gradient norm is logged apart, by the name of the part."""
    after_step: Callable[[int, int], None] = lambda step, total_steps: None
    """Called with every step that was taken and the number of all; leaves the module as it is."""
    draws_by_rows: bool = True
    """Whether ``loss`` is a mean over rows and draws all noise by :func:`calm_bench.row_noise.draw`."""
    section: str = "model"
    """The section of an experiment that configures this training: where advice says what to change."""
    skips_parameters: bool = False
    """Whether a step may leave trained parameters without a gradient."""
    units: Sequence[nn.Module] = ()
    """Parts of the module that are called one after the other, which workers may then hold in pieces."""


@dataclass(frozen=True)
class Summary:
    """What a training cost and where it ended."""

    steps: int
    tokens: int
    training_flops: float
    final_loss: float | None
    validation: dict[str, float]
    wall_time_s: float
    tokens_per_second: float
    plateau_steps: int
    """Steps under the alarm of :mod:`calm_bench.training.plateau`; 0 for losses that it does not judge."""
    arithmetic: str
    """Number format and device (:mod:`calm_bench.arithmetic`); all of them, where it went on in another."""
