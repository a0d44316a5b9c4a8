"""The energy head: one network pass per sample, trained with the energy score (paper section 3.3)."""

from __future__ import annotations

from torch import Tensor

from calm_bench.head_config import EnergyHead as EnergyHeadConfig
from calm_bench.heads.one_step import OneStepHead, pair_distances
from calm_bench.regions import region


@region
def energy_terms(samples: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Fidelity 2 E|y - x|^alpha and diversity E|x - x'|^alpha of model samples x and target draws y, per position.

    Args:
        samples: [N, P, Z], N >= 2.
        mean: [P, Z] of the target posterior.
        log_std: [P, Z].
        noise: [M, P, Z] draws of N(0, 1); y = mean + noise * std.
        alpha: exponent in (0, 2).

    Returns:
        Two [P] tensors in fp32; the loss (equation 11) is their difference.
    """
    squared, distances = pair_distances(samples, mean, log_std, noise)
    fidelity = 2 * _power(squared, alpha / 2).mean(dim=(1, 2))
    if alpha != 1:
        distances = _power(distances.clamp_min(1e-6), alpha)
    return fidelity, distances.mean(dim=1)


def _power(base: Tensor, exponent: float) -> Tensor:
    if exponent == 0.5:
        return base.sqrt()
    return base if exponent == 1 else base.pow(exponent)


class EnergyHead(OneStepHead):
    """A one-step head trained with the energy score (equation 11)."""

    config: EnergyHeadConfig

    def score(self, samples: Tensor, mean: Tensor, log_std: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        return energy_terms(samples, mean, log_std, normal, self.config.alpha)

    def measure(self, distances: Tensor) -> Tensor:
        return distances if self.config.alpha == 1 else distances.pow(self.config.alpha)
