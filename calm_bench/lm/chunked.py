"""The input of a step that reads a whole chunk: K token embeddings to one vector (paper section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.backbone import Backbone
from calm_bench.lm.base import chunks_of

LAYER_NORM_EPS = 1e-6


class ChunkInput(nn.Sequential):
    """MLP K d -> 2 d -> d (SiLU), then LayerNorm, of the chunk's embeddings side by side."""

    def __init__(self, config: LanguageModelConfig, initializer_range: float) -> None:
        """
        Args:
            initializer_range: standard deviation of the initial weights.
        """
        d = config.hidden_size
        super().__init__(
            nn.Linear(config.chunk_size * d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d), nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        )
        start(self, initializer_range)

    def read(self, backbone: Backbone, tokens: Tensor, chunk_size: int) -> Tensor:
        """Inputs of the backbone: ids [..., n * K] -> [..., n, d]."""
        embedded = backbone.embed_tokens(chunks_of(tokens, chunk_size))
        projected: Tensor = self(embedded.flatten(-2))
        return projected


def start(modules: nn.Module, initializer_range: float) -> None:
    """Initial weights of all linear layers inside: normal with this standard deviation, biases zero."""
    for module in modules.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def unit_embeddings(backbone: Backbone, tokens: Tensor) -> Tensor:
    """Embeddings times the square root of d, for layers that read them beside hidden states: ids [...] -> [..., d].

    The table starts with a standard deviation of d^-0.5, which the norm before the backbone's first layer makes up
    for. Inside a chunk there is no such norm, and hidden states are of unit size: unscaled, a token would hardly count
    against them for much of a short training.
    """
    embedded = backbone.embed_tokens(tokens)
    scaled: Tensor = embedded * embedded.shape[-1] ** 0.5
    return scaled
