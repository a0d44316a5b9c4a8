"""The network of heads that make a latent in one pass from a hidden state and uniform noise (paper section 3.3).

What trains it is a scoring rule of its samples: :mod:`calm_bench.heads.energy`, :mod:`calm_bench.heads.drifting`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from calm_bench.head_config import OneStepHead as OneStepHeadConfig
from calm_bench.heads.base import HeadNoise, PureHead
from calm_bench.heads.draws import normals
from calm_bench.heads.monitors import collapsed_share, unconditional_score
from calm_bench.heads.noise import Noise, OneSource
from calm_bench.regions import region
from calm_bench.row_noise import all_rows

LAYER_NORM_EPS = 1e-6


def pair_distances(samples: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of model samples x from target draws y, and distances of the samples from each other.

    The [N, M, P, Z] tensor of all differences is never built (3.3 GB a copy at CALM-M's size): squared distances to
    the targets come from one batched product of [N, Z] by [Z, M], after moving the origin to the target's mean so that
    little cancels. The few pairs among model samples are subtracted outright, since they may nearly coincide; they are
    distinct pairs only, because |x - x|^alpha has no gradient.

    Args:
        samples: [N, P, Z], N >= 2.
        mean: [P, Z] of the target posterior.
        log_std: [P, Z].
        noise: [M, P, Z] draws of N(0, 1); y = mean + noise * std.

    Returns:
        [P, N, M], at least 1e-12, and [P, N (N - 1) / 2], both in fp32.
    """
    x = (samples.float() - mean.float()).transpose(0, 1)
    y = (noise.float() * log_std.float().exp()).transpose(0, 1)
    squared = torch.baddbmm(x.square().sum(-1, keepdim=True), x, y.transpose(1, 2), alpha=-2)
    squared = squared + y.square().sum(-1).unsqueeze(1)
    first, second = torch.triu_indices(len(samples), len(samples), offset=1, device=x.device)
    return squared.clamp_min(1e-12), torch.linalg.vector_norm(x[:, first] - x[:, second], dim=-1)


class OneStepBlock(nn.Module):
    """x <- x + Down(SiLU(g) * u) with (g, u) = MLP([LayerNorm(x), condition])."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.in_proj = nn.Linear(2 * width, width)
        self.mid_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, 2 * width)
        self.down_proj = nn.Linear(width, width)

    def condition(self, hidden: Tensor) -> Tensor:
        """The condition's share of the first layer: it is the same for every sample, so computed once."""
        return functional.linear(hidden, self.in_proj.weight[:, hidden.shape[-1] :], self.in_proj.bias)

    @region
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        first = functional.linear(self.norm(x), self.in_proj.weight[:, : x.shape[-1]]) + condition
        gate, up = self.out_proj(functional.silu(self.mid_proj(functional.silu(first)))).chunk(2, dim=-1)
        out: Tensor = x + self.down_proj(functional.silu(gate) * up)
        return out


class FinalLayer(nn.Module):
    """LayerNorm and a two-layer map to the latent; zero at the start, so every first sample is the origin."""

    def __init__(self, width: int, latent_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.in_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, latent_size)

    @region
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(functional.silu(self.in_proj(self.norm(x))))
        return out


class OneStepHead(PureHead):
    """Maps (hidden state, uniform noise) to a latent, trained with a score of N samples that compares their distances
    from the target with those from each other."""

    draws_by_rows = True

    def __init__(self, config: OneStepHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        width = config.width or hidden_size
        self.config = config
        self.noise_embedding = nn.Linear(config.noise_size, width)
        self.hidden_embedding = nn.Linear(hidden_size, width)
        self.noise_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.hidden_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.blocks = nn.ModuleList(OneStepBlock(width) for _ in range(config.num_blocks))
        self.final = FinalLayer(width, latent_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.final.out_proj.weight)

    def forward(self, hidden: Tensor, noise: Tensor) -> Tensor:
        """[..., d] and noise [N, ..., noise_size] -> latents [N, ..., Z]."""
        condition = self.hidden_norm(self.hidden_embedding(hidden))
        x = self.noise_norm(self.noise_embedding(noise))
        for block in self.blocks:
            assert isinstance(block, OneStepBlock)
            x = block(x, block.condition(condition))
        out: Tensor = self.final(x)
        return out

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        latents: Tensor = self(hidden, (noise.uniform(self.config.noise_size) - 0.5).to(hidden.dtype))
        return latents

    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """Uniforms of the samples [N, P, noise_size], and normals of the targets [M, P, Z]."""
        source = OneSource(target_mean, self.config.num_samples, generator)
        return source.uniform(self.config.noise_size), normals(self.config.num_targets, target_mean, generator)

    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        uniform, normal = noise
        samples = self(hidden, (uniform - 0.5).to(hidden.dtype))
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            fidelity, diversity = self.score(samples, target_mean, target_log_std, normal)
        terms = {"fidelity": fidelity.mean(), "diversity": diversity.mean()}
        loss = terms["fidelity"] - terms["diversity"]
        terms["collapsed"] = collapsed_share(samples, target_log_std)
        return loss, {name: term.detach() for name, term in terms.items()}

    def compared(
        self, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise, generator: Generator | None
    ) -> dict[str, Tensor]:
        mean, log_std, normal = all_rows(generator, target_mean, target_log_std, noise[1][0])
        return {"unconditional": unconditional_score(mean, log_std, normal, self.measure)}

    @abstractmethod
    def score(self, samples: Tensor, mean: Tensor, log_std: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Fidelity 2 E f(|y - x|) and diversity E f(|x - x'|) of samples x and target draws y, per position.

        Args:
            samples: [N, P, Z].
            mean: [P, Z] of the target posterior, with ``log_std`` [P, Z].
            normal: [M, P, Z] draws of N(0, 1); y = mean + normal * std.

        Returns:
            Two [P] tensors in fp32; the loss is their difference, averaged over the positions.
        """

    @abstractmethod
    def measure(self, distances: Tensor) -> Tensor:
        """f of distances, elementwise."""
