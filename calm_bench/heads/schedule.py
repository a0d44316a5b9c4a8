"""Noise levels of a diffusion over 1000 times, and the Gaussian steps between any two of them.

x_t = signal_t * x_0 + noise_t * e with signal^2 + noise^2 = 1 and e ~ N(0, I); alpha_bar = signal^2. Tables are
computed in double precision (as the reference does) and kept in single.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TIMES = 1000
MAX_BETA = 0.999
OFFSET = 0.008


def clipped_cosine() -> Tensor:
    """alpha_bar [1000] of the cosine schedule as the reference has it: its last step keeps 0.1 % of the variance.

    Nichol and Dhariwal, arXiv 2102.09672, equation 17; every step's variance is at most 0.999.
    """

    def signal(step: int) -> float:
        return math.cos((step / NUM_TIMES + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    betas = [min(1 - signal(step + 1) / signal(step), MAX_BETA) for step in range(NUM_TIMES)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)


def zero_terminal_cosine() -> Tensor:
    """alpha_bar [1000] that reaches exactly 0, so that sampling may begin in pure noise (arXiv 2305.08891)."""
    steps = torch.arange(1, NUM_TIMES + 1, dtype=torch.float64)
    alpha_bar = (steps / NUM_TIMES * math.pi / 2).cos().square()
    alpha_bar[-1] = 0.0
    return alpha_bar


@functools.cache
def last_time(schedule: Callable[[], Tensor], start: float) -> int:
    """The last time of ``schedule`` whose signal is at least ``start``, read off the table once."""
    return int((schedule().sqrt() >= start).nonzero()[-1])


def spaced_times(last: int, num_steps: int) -> Tensor:
    """``num_steps`` evenly spaced integer times from 0 to ``last``, ascending: [min(num_steps, last + 1)]."""
    steps = min(num_steps, last + 1)
    # In double precision and accumulated, to round as the reference does.
    stride, reached, times = last / max(steps - 1, 1), 0.0, []
    for _ in range(steps):
        times.append(round(reached))
        reached += stride
    return torch.tensor(times)


@dataclass(frozen=True)
class Steps:
    """Coefficients of a diffusion that visits only some times; every tensor is [number of times] in fp32.

    ``posterior_*``: q(x_s | x_t, x_0) for the next visited time s < t (s is the data itself below the first).
    """

    signal: Tensor
    noise: Tensor
    inverse_signal: Tensor
    noise_over_signal: Tensor
    posterior_from_data: Tensor
    posterior_from_x: Tensor
    posterior_log_variance: Tensor
    log_beta: Tensor
    previous_signal: Tensor
    previous_noise: Tensor

    def at(self, index: Tensor | int) -> Steps:
        """The rows ``index`` [...] of each table, as [..., 1] to be multiplied with latents.

        A single row is best asked for by an int: a tensor on a GPU would be fetched for each table.
        """
        return Steps(*(getattr(self, name)[index].unsqueeze(-1) for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> Steps:
        """On ``device``; itself if it is there."""
        if self.signal.device == device:
            return self
        return Steps(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def steps_through(alpha_bar: Tensor) -> Steps:
    """The coefficients for visiting the times whose ``alpha_bar`` these are, ascending in time: [n] in double."""
    previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    beta = 1 - alpha_bar / previous
    variance = beta * (1 - previous) / (1 - alpha_bar)
    # The step onto the data has no variance; its logarithm takes the next one's, as in the reference.
    log_variance = torch.cat([variance[1:2], variance[1:]]).log()
    tables = (
        alpha_bar.sqrt(),
        (1 - alpha_bar).sqrt(),
        alpha_bar.rsqrt(),
        (1 / alpha_bar - 1).sqrt(),
        beta * previous.sqrt() / (1 - alpha_bar),
        (1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar),
        log_variance,
        beta.log(),
        previous.sqrt(),
        (1 - previous).sqrt(),
    )
    return Steps(*(table.float() for table in tables))
