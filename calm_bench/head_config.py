"""The settings of each generative head; ``model.head.kind`` says which."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from calm_bench.frozen import Frozen, PositiveInt


class OneStepHead(Frozen):
    """What the heads that make a latent of uniform noise in one pass have in common: their network and its samples."""

    kind: str
    """First, as files of studies have it."""
    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_blocks: PositiveInt = 2
    noise_size: PositiveInt = 64
    num_samples: Annotated[int, Field(ge=2)] = 8
    """N, model samples per position in training, which are compared with each other: two at least."""
    num_targets: PositiveInt = 100
    """M, draws from the target chunk's posterior."""


class EnergyHead(OneStepHead):
    """The one-step head trained with the energy score (paper section 3.3)."""

    kind: Literal["energy"] = "energy"
    alpha: Annotated[float, Field(gt=0, lt=2)] = 1.0
    """Exponent of the distance; the score is strictly proper only inside (0, 2)."""


class DriftingHead(OneStepHead):
    """The one-step head whose samples drift to the target and away from each other (after arXiv 2602.04770)."""

    kind: Literal["drifting"] = "drifting"
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.25, 1.0)
    """How far samples are drawn and pushed, in units of the root of the latent size; the fields of all are averaged.
    The longer, the nearer to the energy score."""


class NetworkHead(Frozen):
    """What the heads that move noise to data have in common: an MLP that a time and the hidden state modulate."""

    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_blocks: PositiveInt = 2
    num_samples: PositiveInt = 4
    """N, noised draws of the target a position is trained on; the paper's models have 8."""
    time_features: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Sines and cosines that a time becomes before the network reads it; the paper's models have 256."""


class DiffusionHead(NetworkHead):
    """The many-step head that removes noise (paper section 3.2)."""

    kind: Literal["diffusion"] = "diffusion"
    objective: Literal["velocity", "noise"] = "velocity"
    """What the network predicts. ``velocity`` ends in pure noise and divides by no vanishing signal; ``noise`` is the
    reference's, with learned variances, whose first sampling step multiplies an error by hundreds."""
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    """``ancestral`` draws fresh noise at every step; ``ddim`` draws only the start."""
    num_steps: Annotated[int, Field(ge=2, le=1000)] = 25
    """Network passes per sample; the paper's models have 100."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sampling begins at the last time whose signal is at least this share of the standard deviation: 0.05 bounds an
    error's factor at 20 where a ``noise`` network from the very end (0) has 20 000."""


class FlowHead(NetworkHead):
    """The many-step head that integrates a velocity from noise to data (flow matching on straight lines)."""

    kind: Literal["flow"] = "flow"
    solver: Literal["midpoint", "euler"] = "midpoint"
    """``midpoint`` passes the network twice a step."""
    num_steps: PositiveInt = 4
    skip: bool = True
    """Add to the network what is linear in its input, so that it need not copy it; the reference does not."""
    time_levels: PositiveInt | None = None
    """Round times down to this many levels before the network reads them; the reference has 1000."""


class ShortcutHead(NetworkHead):
    """The few-step head whose steps of any length agree with two of half the length (arXiv 2410.12557)."""

    kind: Literal["shortcut"] = "shortcut"
    num_shortcuts: PositiveInt = 1
    """Samples, of the N, that learn a long step; the others learn the velocity."""
    num_halvings: PositiveInt = 4
    """Long steps have length 1, 1/2, 1/4, ...: so many lengths."""
    num_steps: Literal[1, 2, 4, 8, 16, 32, 64] = 1
    """Network passes per sample."""

    @model_validator(mode="after")
    def _every_step_is_learned(self) -> Self:
        if self.num_shortcuts >= self.num_samples:
            raise ValueError(
                f"num_shortcuts {self.num_shortcuts} must stay below num_samples {self.num_samples}: "
                "long steps are learned from velocities"
            )
        if self.num_steps > 2 ** (self.num_halvings - 1):
            raise ValueError(f"num_halvings {self.num_halvings} trains no steps as short as 1/{self.num_steps}")
        return self


class MeanFlowHead(NetworkHead):
    """The few-step head that learns average velocities by their derivative (arXiv 2505.13447 and 2512.02012)."""

    kind: Literal["mean_flow"] = "mean_flow"
    num_jumps: PositiveInt = 1
    """Samples, of the N, that learn an average velocity; the others learn the velocity."""
    num_steps: PositiveInt = 1
    """Network passes per sample, whose jumps are what is learned."""

    @model_validator(mode="after")
    def _some_samples_learn_the_velocity(self) -> Self:
        if self.num_jumps >= self.num_samples:
            raise ValueError(
                f"num_jumps {self.num_jumps} must stay below num_samples {self.num_samples}: "
                "average velocities are learned from velocities"
            )
        return self


class CustomHead(Frozen):
    """A head whose class is somewhere else: :mod:`calm_bench.heads.custom` says what it must be."""

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """``module:Class``, importable where the training runs."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class, after the hidden size and the latent size."""
    revision: int = 1
    """Count up when the class changes: its code is not looked at to decide whether a trained model can be reused."""


HeadConfig = Annotated[
    EnergyHead | DriftingHead | DiffusionHead | FlowHead | ShortcutHead | MeanFlowHead | CustomHead,
    Field(discriminator="kind"),
]
