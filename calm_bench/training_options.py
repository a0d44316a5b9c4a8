"""How a training is carried out on a machine. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KEEP_CHECKPOINTS = 2


@dataclass(frozen=True)
class TrainingOptions:
    """What belongs to the machine and not to the experiment: no result depends on it beyond the rounding of sums."""

    keep_checkpoints: int = KEEP_CHECKPOINTS
    """Newest checkpoints that are kept, beside the one of the lowest validation loss."""
    micro_batch: int | Literal["auto"] = "auto"
    """Sequences that a worker computes at once. ``auto`` is all that its memory holds."""
    activation_checkpointing: bool = False
    """Whether the layers of a language model are computed again in the backward pass, which then keeps their inputs
    only."""


DEFAULT_OPTIONS = TrainingOptions()
