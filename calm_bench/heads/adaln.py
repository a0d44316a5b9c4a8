"""The network shared by the heads that move noise to data: an MLP whose norms a time and the hidden state modulate.

The architecture is the one the paper takes for its diffusion and flow heads (section 3.2), as MAR has it
(arXiv 2406.11838). Shape legend: w width, d hidden size of the backbone, Z latent size, F time features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from calm_bench.head_config import NetworkHead
from calm_bench.regions import region

LAYER_NORM_EPS = 1e-6
LONGEST_PERIOD = 10_000.0
TIME_STD = 0.02


def time_features(time: Tensor, num_features: int) -> Tensor:
    """Cosines and sines of geometrically spaced frequencies: [...] -> [..., F] in fp32.

    Args:
        time: in units of the noise schedule's levels, 0 to 1000: the frequencies reach from 1 to 1e-4.
    """
    half = num_features // 2
    frequencies = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=time.device) / half)
    angles = time.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """A time as a vector: F features -> w -> w."""

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.in_proj = nn.Linear(num_features, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        features = time_features(time, self.num_features).to(self.in_proj.weight.dtype)
        out: Tensor = self.out_proj(functional.silu(self.in_proj(features)))
        return out


class AdaLNBlock(nn.Module):
    """x <- x + gate * MLP(LayerNorm(x) * (1 + scale) + shift); shift, scale and gate come from the modulation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.in_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

    @region
    def forward(self, x: Tensor, modulator: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(modulator).chunk(3, dim=-1)
        change = self.out_proj(functional.silu(self.in_proj(self.norm(x) * (1 + scale) + shift)))
        out: Tensor = x + gate * change
        return out


class AdaLNFinal(nn.Module):
    """Modulated norm and a linear map to the output; zero at the start."""

    def __init__(self, width: int, output_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, output_size)

    @region
    def forward(self, x: Tensor, modulator: Tensor) -> Tensor:
        shift, scale = self.modulation(modulator).chunk(2, dim=-1)
        out: Tensor = self.out_proj(self.norm(x) * (1 + scale) + shift)
        return out


class AdaLNNetwork(nn.Module):
    """(noisy latent, time, condition) -> output, all three broadcast against each other.

    What does not depend on a sample is computed once for all of them where the caller passes it without the samples'
    dimension: the condition's embedding always, and in sampling, where all samples share a time, every modulation.
    """

    def __init__(
        self, config: NetworkHead, hidden_size: int, latent_size: int, output_size: int, num_times: int = 1
    ) -> None:
        super().__init__()
        width = config.width or hidden_size
        self.times = nn.ModuleList(TimeEmbedding(config.time_features, width) for _ in range(num_times))
        self.condition_embedding = nn.Linear(hidden_size, width)
        self.latent_embedding = nn.Linear(latent_size, width)
        self.blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(config.num_blocks))
        self.final = AdaLNFinal(width, output_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, TimeEmbedding):
                nn.init.normal_(module.in_proj.weight, std=TIME_STD)
                nn.init.normal_(module.out_proj.weight, std=TIME_STD)
        # Every block begins as the identity and the output as zero.
        for block in [*self.blocks, self.final]:
            nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.final.out_proj.weight)

    def embed_times(self, *times: Tensor) -> Tensor:
        """Each [...] in units of 1000 -> their summed embeddings [..., w]."""
        embedded: Tensor = sum(embed(time) for embed, time in zip(self.times, times, strict=True))
        return embedded

    def embed_condition(self, hidden: Tensor) -> Tensor:
        """[..., d] -> [..., w]."""
        embedded: Tensor = self.condition_embedding(hidden)
        return embedded

    def denoise(self, x: Tensor, time_embedding: Tensor, condition: Tensor) -> Tensor:
        """Latents [..., Z] with embedded time and condition [..., w] -> output [..., output_size] in fp32."""
        modulator = functional.silu(time_embedding + condition)
        x = self.latent_embedding(x.to(self.latent_embedding.weight.dtype))
        for block in self.blocks:
            x = block(x, modulator)
        out: Tensor = self.final(x, modulator)
        return out.float()

    def forward(self, x: Tensor, time: Tensor, hidden: Tensor) -> Tensor:
        """[..., Z], one time [...] in units of 1000, [..., d] -> [..., output_size] in fp32."""
        return self.denoise(x, self.embed_times(time), self.embed_condition(hidden))
