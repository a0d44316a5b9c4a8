"""The drifting head: one network pass per sample, trained by a field that moves samples (after arXiv 2602.04770).

A drifting model moves its samples x along ``V(x) = E_y[k(x, y) (y - x)] / Z_p - E_x'[k(x, x') (x' - x)] / Z_q``, drawn
by data y and repelled by samples x' of its own, with the kernel ``k = exp(-|x - y| / tau)`` at several temperatures;
the network regresses ``x + V(x)``, held fixed. Where p = q the two parts cancel.

Here p is what may follow one context, of which there is one target y. Its normaliser Z_p is then k(x, y) itself, the
kernel cancels, and every sample is drawn to the conditional mean. Normalised by both kernels (the paper's algorithm 2),
samples that coincide see nothing but each other, and stay together. What is left out is therefore the normalisers:
the field is then linear in p, one target an unbiased estimate of it, as in the energy score. And with the kernel's own
direction, the unit vector (2605.10727), it is the gradient of a score: with ``f(d) = tau (1 - exp(-d / tau))``,

    L = 2 E f(|y - x|) - E f(|x - x'|),

whose gradient by x is ``-2 (E[k(x, y) e(y - x)] - E[k(x, x') e(x' - x)])``, e(v) = v / |v|. It is the kernel score of
the Laplace kernel (Gneiting and Raftery 2007, section 5), which is strictly proper, and the energy score where tau goes
to infinity: that one draws over any distance with equal force, this one more from what is near, so it tells
neighbouring modes apart.
"""

from __future__ import annotations

from torch import Tensor

from calm_bench.head_config import DriftingHead as DriftingHeadConfig
from calm_bench.heads.one_step import OneStepHead, pair_distances


class DriftingHead(OneStepHead):
    """A one-step head trained with the score whose gradient is an attraction and a repulsion of limited reach."""

    config: DriftingHeadConfig

    def __init__(self, config: DriftingHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__(config, hidden_size, latent_size)
        # Distances of unit normals grow with the root of their dimension.
        self.temperatures = [share * latent_size**0.5 for share in config.temperatures]

    def score(self, samples: Tensor, mean: Tensor, log_std: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        squared, distances = pair_distances(samples, mean, log_std, normal)
        return 2 * self.measure(squared.sqrt()).mean(dim=(1, 2)), self.measure(distances).mean(dim=1)

    def measure(self, distances: Tensor) -> Tensor:
        """The mean of ``tau (1 - exp(-d / tau))`` over the temperatures."""
        total = sum(-tau * (-distances / tau).expm1() for tau in self.temperatures)
        out: Tensor = total / len(self.temperatures)
        return out
