"""The batch approximation of temperature sampling (paper, algorithm 2), for whole batches.

Draw N candidates and count every distinct chunk: c_x. With T = 1/n, choose among the chunks with c_x >= n with weight
C(c_x, n), the number of ways to find n equal candidates; if there are none, try n - 1, and so on. Biased for finite N,
consistent. For other temperatures, 1/T = t, the binomial coefficient is the generalised one,
Gamma(c + 1) / (Gamma(t + 1) Gamma(c - t + 1)), over the chunks with c_x >= floor(t); the paper stops at T = 1/n.

Shape letters: R rows, M candidates of a row, K tokens of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calm_bench.sampling.exact import LARGEST_STAGE
from calm_bench.sampling.pool import Source, chunk_ids, fitting, occurrences
from calm_bench.sampling.power import Power


def selection_probabilities(pool: Tensor, power: Power, valid: Tensor | None = None) -> Tensor:
    """Probability with which each candidate is chosen; a chunk that occurs often has all of it at its first place.

    Args:
        pool: Long [R, M, K].
        valid: Bool [R, M], candidates that count, at least one in every row; None for all.

    Returns:
        fp64 [R, M], rows sum to 1.
    """
    if valid is None:
        valid = torch.ones(pool.shape[:2], dtype=torch.bool, device=pool.device)
    counts, is_first = occurrences(chunk_ids(pool), valid)
    most = counts.where(valid, 0).amax(dim=1, keepdim=True)
    needed = most.clamp(max=power.whole)
    exponent = torch.where(most >= power.whole, power.value, needed.double())
    return _log_ways(counts, exponent).masked_fill(~is_first | (counts < needed), -torch.inf).softmax(dim=1)


def acceptance(pool: Tensor, power: Power) -> Tensor:
    """Probability that an attempt of the exact algorithm succeeds, sum_x P(x)^t, as the pool tells it: fp64 [R].

    sum_x C(c_x, t) / C(M, t) over the distinct chunks x of ``pool`` [R, M, K]: the share of equal ones among all ways
    to take t of the M candidates. Unbiased for whole t; 0 where no chunk occurs t times or more, or none is there.
    """
    if pool.shape[1] < power.whole:
        return pool.new_zeros(len(pool), dtype=torch.float64)
    counts, is_first = occurrences(chunk_ids(pool), torch.ones(pool.shape[:2], dtype=torch.bool, device=pool.device))
    ways = _log_ways(counts, power.value).masked_fill(~is_first | (counts < power.whole), -torch.inf).exp().sum(dim=1)
    return ways / _log_ways(torch.tensor(pool.shape[1], device=pool.device), power.value).exp()


def _log_ways(count: Tensor, exponent: float | Tensor) -> Tensor:
    """Logarithm of C(count, exponent), the generalised binomial coefficient."""
    number = count.double()
    tuples = torch.as_tensor(exponent, dtype=torch.float64, device=count.device)
    return torch.lgamma(number + 1) - torch.lgamma((number - tuples + 1).clamp_min(1e-9)) - torch.lgamma(tuples + 1)


def choose(pool: Tensor, power: Power, uniform: Tensor, valid: Tensor | None = None) -> Tensor:
    """The chunk that each row's number in ``uniform`` [R] selects: Long [R, K]."""
    cumulative = selection_probabilities(pool, power, valid).cumsum(dim=1)
    # Scaled by the last entry, which rounding may leave just below 1.
    chosen = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(dim=1)
    return pool[torch.arange(len(pool), device=pool.device), chosen]


def draw_pool(source: Source, rows: list[int], num_candidates: int) -> Tensor:
    """Long [len(rows), num_candidates, K], drawn in parts that bound the memory."""
    parts = []
    while num_candidates:
        count = min(num_candidates, LARGEST_STAGE)
        parts.append(source.chunks(rows, count))
        num_candidates -= count
    return torch.cat(parts, dim=1)


def draw_fitting_pool(source: Source, row: int, begin: list[int], num_candidates: int, max_draws: int) -> Tensor:
    """Candidates of one row drawn until ``num_candidates`` begin with ``begin`` or ``max_draws`` are spent.

    Returns:
        Long [1, M, K], the others included; M is the number drawn.
    """
    pool = draw_pool(source, [row], min(num_candidates, max_draws))
    while pool.shape[1] < max_draws and int(fitting(pool, [begin]).sum()) < num_candidates:
        pool = torch.cat([pool, draw_pool(source, [row], min(num_candidates, max_draws - pool.shape[1]))], dim=1)
    return pool
