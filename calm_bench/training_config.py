"""One optimisation, of an autoencoder or a language model: the section ``training`` of both."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from calm_bench.frozen import Fraction, Frozen, NonNegativeInt, PositiveInt


class Training(Frozen):
    """One optimisation: its budget, batches, optimizer and schedule. Lengths are in tokens, whatever K is."""

    num_steps: PositiveInt | None = None
    num_tokens: Annotated[float, Field(gt=0)] | None = None
    num_flops: Annotated[float, Field(gt=0)] | None = None
    batch_size: PositiveInt = 8
    """Sequences per optimizer step."""
    sequence_length: PositiveInt = 256
    shuffle_shards: Annotated[PositiveInt | None, Field(exclude_if=lambda count: count is None)] = None
    """So many token shards, and two more, are held at a time, and sequences shuffled among them; unset shuffles the
    whole text, all of which is then on the machine."""
    gradient_accumulation: PositiveInt = 1
    """Micro-batches a step is split into; must divide ``batch_size``."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: NonNegativeInt = 100
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Last learning rate as a fraction of ``learning_rate`` (cosine and linear schedules)."""
    weight_average: Annotated[float | None, Field(gt=0, lt=1, exclude_if=lambda decay: decay is None)] = None
    """Decay of a moving average of the weights, which is what is validated and saved; unset keeps the last weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 on a GPU and fp32 on a CPU."""
    log_every: PositiveInt = 20
    validate_every: PositiveInt = 200
    validation_batches: PositiveInt = 8
    checkpoint_every: PositiveInt = 200
    divergence_factor: Annotated[float, Field(gt=1)] = 5.0
    """Stop when the smoothed loss exceeds this many times the loss of the first steps."""

    @model_validator(mode="after")
    def _one_budget_and_whole_micro_batches(self) -> Self:
        given = [name for name in ("num_steps", "num_tokens", "num_flops") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"exactly one of num_steps, num_tokens, num_flops must be set, found {found}")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation {self.gradient_accumulation}"
            )
        return self
