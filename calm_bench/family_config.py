"""The settings of each family of models that has some; ``model.kind`` says which family a model is of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from calm_bench.frozen import Frozen, PositiveInt


class ChunkDecoder(Frozen):
    """The small autoregressive decoder over the tokens of a chunk (``model.kind=patch``; arXiv 2305.07185)."""

    kind: Literal["gru", "transformer"] = "gru"
    """``gru``: recurrent cells that begin with the backbone's hidden state, and an MLP; ``transformer``: causal layers
    that have it added to their inputs."""
    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_layers: PositiveInt = 1
    intermediate_size: PositiveInt | None = None
    """Hidden width of the MLP after the cells, or of each layer's SwiGLU; unset means twice the width."""


class Denoiser(Frozen):
    """The masked diffusion over the tokens of a block (``model.kind=block_diffusion``; arXiv 2503.09573)."""

    num_steps: PositiveInt | None = None
    """Denoising steps of a sample, K or fewer; unset means K, so that every token sees all those drawn before it."""
    block_length: PositiveInt | None = None
    """Tokens of a block; unset means ``model.chunk_size``, the only length that is possible."""
    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_layers: PositiveInt = 2
    intermediate_size: PositiveInt | None = None
    """Hidden width of each layer's SwiGLU; unset means twice the width."""


class CustomFamily(Frozen):
    """A family that is somewhere else: :mod:`calm_bench.families.custom` says what it must be."""

    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    """``module:NAME`` of its description or of its network, importable where the training runs. A family that a
    distribution registers (entry point group ``calm_bench.family``) is asked for by ``model.kind`` and has none."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the family's own."""
    revision: int = 1
    """Count up when the class changes: its code is not looked at to decide whether a trained model can be reused."""
