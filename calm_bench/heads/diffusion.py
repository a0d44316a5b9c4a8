"""The diffusion head: learns to remove noise, samples by removing it step by step (arXiv 2006.11239)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from calm_bench.head_config import DiffusionHead as DiffusionHeadConfig
from calm_bench.heads.adaln import AdaLNNetwork
from calm_bench.heads.base import HeadNoise, PureHead
from calm_bench.heads.draws import normals, offsets, posterior, spread
from calm_bench.heads.noise import Noise
from calm_bench.heads.schedule import (
    NUM_TIMES,
    Steps,
    clipped_cosine,
    last_time,
    spaced_times,
    steps_through,
    zero_terminal_cosine,
)

BIN = 1 / 255
LAST_BIN = 0.999
TINY = 1e-12


class DiffusionHead(PureHead):
    """Predicts the velocity ``signal * e - noise * x_0``, or the noise e with a variance.

    The velocity's estimate of the data, ``signal * x_t - noise * v``, multiplies no error of the network by more than
    one at any noise level, so sampling can begin in pure noise (arXiv 2202.00512, 2305.08891). Estimating the data
    from the noise instead divides by ``signal``, which is 5e-5 at the reference's last time.
    """

    draws_by_rows = True

    def __init__(self, config: DiffusionHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        self.config, self.latent_size = config, latent_size
        self.learns_noise = config.objective == "noise"
        outputs = 2 * latent_size if self.learns_noise else latent_size
        self.network = AdaLNNetwork(config, hidden_size, latent_size, outputs)
        schedule = clipped_cosine if self.learns_noise else zero_terminal_cosine
        alpha_bar = schedule()
        self._every_time = steps_through(alpha_bar)
        self.visited = spaced_times(last_time(schedule, config.start), config.num_steps)
        self._visited_steps = steps_through(alpha_bar[self.visited])

    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """Normals of the targets [N, P, Z], offsets of the times [P], and the noise that is added [N, P, Z]."""
        count = self.config.num_samples
        return (
            normals(count, target_mean, generator),
            offsets(target_mean, generator),
            normals(count, target_mean, generator),
        )

    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        normal, offset, added = noise
        data = posterior(target_mean, target_log_std, normal)
        time = (spread(self.config.num_samples, offset) * NUM_TIMES).long()
        errors = self.errors(hidden, data, added, time)
        terms = {name: error.mean() for name, error in errors.items()}
        return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}

    def errors(self, hidden: Tensor, data: Tensor, noise: Tensor, time: Tensor) -> dict[str, Tensor]:
        """Terms of the loss: [P, d], [N, P, Z] twice, times [N, P] in 0..999 -> each [N, P].

        ``denoising`` is the mean squared error over dimensions. With learned variances there is a ``variational``
        term too, in bits per dimension, which trains the variance alone.
        """
        # Moved once and kept: ten small copies a step would be ten waits for a GPU.
        self._every_time = self._every_time.to(data.device)
        at = self._every_time.at(time)
        x = at.signal * data + at.noise * noise
        output = self.network(x, time, hidden)
        if not self.learns_noise:
            velocity = at.signal * noise - at.noise * data
            return {"denoising": (output - velocity).square().mean(dim=-1)}
        predicted, fraction = output.chunk(2, dim=-1)
        return {
            "denoising": (predicted - noise).square().mean(dim=-1),
            "variational": _variational_bits(at, time, data, x, predicted.detach(), fraction),
        }

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        start = noise.normal(self.latent_size)
        return self.reverse(hidden, start, lambda _: noise.normal(self.latent_size)).to(hidden.dtype)

    def reverse(self, hidden: Tensor, x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """From noise x [S, ..., Z] to latents, for ``hidden`` [..., d].

        Args:
            draw: fresh normals of its argument's shape, asked for once a step but the last of ancestral sampling.
        """
        steps = self._visited_steps = self._visited_steps.to(x.device)
        self.visited = self.visited.to(x.device)
        embedded = self.network.embed_times(self.visited)
        condition = self.network.embed_condition(hidden)
        for index in range(len(embedded) - 1, -1, -1):
            at = steps.at(index)
            output = self.network.denoise(x, embedded[index], condition)
            if self.config.sampler == "ddim":
                data, noise = self._estimates(at, x, output)
                x = at.previous_signal * data + at.previous_noise * noise
            else:
                x, log_variance = self.reverse_step(at, x, output)
                if index:
                    x = x + (0.5 * log_variance).exp() * draw(x)
        return x

    def reverse_step(self, at: Steps, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the next x, both [..., Z] or broadcast to it, from the network's output at x."""
        data, _ = self._estimates(at, x, output)
        mean = at.posterior_from_data * data + at.posterior_from_x * x
        if not self.learns_noise:
            return mean, at.posterior_log_variance
        return mean, _learned_log_variance(at, output.chunk(2, dim=-1)[1])

    def _estimates(self, at: Steps, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of the data and of the noise in x."""
        if self.learns_noise:
            noise = output.chunk(2, dim=-1)[0]
            return at.inverse_signal * x - at.noise_over_signal * noise, noise
        return at.signal * x - at.noise * output, at.noise * x + at.signal * output


def _learned_log_variance(at: Steps, fraction: Tensor) -> Tensor:
    """Between the two bounds of the true step's log variance (arXiv 2102.09672, equation 15); -1 is the lower."""
    weight = (fraction + 1) / 2
    return weight * at.log_beta + (1 - weight) * at.posterior_log_variance


def _variational_bits(
    at: Steps, time: Tensor, data: Tensor, x: Tensor, predicted_noise: Tensor, fraction: Tensor
) -> Tensor:
    """The step's term of the variational bound, mean over dimensions, in bits: [N, P].

    At time 0 this is the reference's likelihood of data in bins of 1/127.5 over [-1, 1], meant for images. It is kept
    to agree with the reference; the velocity objective has no such term.
    """
    estimate = at.inverse_signal * x - at.noise_over_signal * predicted_noise
    mean = at.posterior_from_data * estimate + at.posterior_from_x * x
    true_mean = at.posterior_from_data * data + at.posterior_from_x * x
    log_variance = _learned_log_variance(at, fraction)
    difference = at.posterior_log_variance - log_variance
    divergence = 0.5 * (difference.exp() - 1 - difference + (true_mean - mean).square() * torch.exp(-log_variance))
    likelihood = _binned_log_likelihood(data, mean, 0.5 * log_variance)
    nats = torch.where(time.unsqueeze(-1) == 0, -likelihood, divergence)
    return nats.mean(dim=-1) / math.log(2)


def _binned_log_likelihood(data: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability of the bin around ``data``; the outermost bins reach to infinity."""
    centred, inverse = data - mean, torch.exp(-log_std)
    below_upper, below_lower = _normal_cdf(inverse * (centred + BIN)), _normal_cdf(inverse * (centred - BIN))
    inside = (below_upper - below_lower).clamp_min(TINY).log()
    above = (1 - below_lower).clamp_min(TINY).log()
    below = below_upper.clamp_min(TINY).log()
    return torch.where(data < -LAST_BIN, below, torch.where(data > LAST_BIN, above, inside))


def _normal_cdf(x: Tensor) -> Tensor:
    """The reference's approximation of the normal distribution function, to four digits."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
