"""The exact algorithm of temperature sampling without a likelihood (paper, algorithm 1), for whole batches.

With 1/T = n + a: draw n candidates; unless all are equal, start over. If a > 0, toss the Bernoulli factory of p^a: for
i = 1, 2, ... draw another; if it equals the candidate, accept it, else start over with probability a / i.

Here the algorithm reads a stream of candidates that is drawn in stages. Where an attempt that starts at candidate q
ends, and how, depends on nothing before q, so it is found for all q at once; the attempts that are made are those
reached from q = 0 by following the ends, which pointer doubling does in log2(M) steps. Two changes save work and leave
the distribution as it is:

- An attempt fails at its first candidate that differs, without drawing the rest of its n.
- The toss at which an attempt would end is drawn beforehand, one uniform number per start:
  P(S > i) = (1 - a/1)(1 - a/2)...(1 - a/i). The attempt is accepted if the candidate recurs at a toss H <= S.

Shape letters: R rows, M candidates of a row, K tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calm_bench.sampling.pool import Source, chunk_ids, fitting
from calm_bench.sampling.power import Power

FIRST_STAGE = 16
"""Candidates drawn for a row before it is known whether it accepts one (one at T = 1); then the total is doubled."""
LARGEST_STAGE = 256
"""Bounds the memory of a stage, for a row."""


@dataclass(frozen=True)
class Search:
    """What :func:`search` found."""

    chunks: Tensor
    """Long [R, K]; zeros where nothing was accepted."""
    accepted: Tensor
    """Bool [R]."""
    num_draws: Tensor
    """Long [R]: candidates drawn, the unused ones of the last stage included."""
    pools: dict[int, Tensor]
    """For a row without an accepted candidate, those that it may have: Long [m, K], m >= 0."""


def search(source: Source, begins: list[list[int]], power: Power, max_draws: int) -> Search:
    """One chunk of every row, distributed as P(x)^(1/T) among the chunks that begin with the row's known tokens.

    A row that has accepted draws no more. A row that has not accepted after ``max_draws`` candidates is given up.

    Args:
        begins: the known tokens of each row; usually empty lists.
    """
    everything = list(range(len(begins)))
    free = not any(begins)
    if free and power == Power(1, 0.0):
        chunks = source.chunks(everything, 1)[:, 0]
        ones = torch.ones(len(chunks), dtype=torch.long, device=chunks.device)
        return Search(chunks, ones.bool(), ones, {})
    first = 1 if power == Power(1, 0.0) else max(FIRST_STAGE, power.whole)
    active, total = everything, 0
    pool = uniform = found = accepted = num_draws = None
    while active and total < max_draws:
        count = min(max(first, total), max(first, LARGEST_STAGE), max_draws - total)
        drawn = source.chunks(active, count)
        pool = drawn if pool is None else torch.cat([pool, drawn], dim=1)
        if power.rest:
            more = source.uniform(active, count)
            uniform = more if uniform is None else torch.cat([uniform, more], dim=1)
        total += count
        if found is None or accepted is None or num_draws is None:
            found = pool.new_zeros((len(begins), pool.shape[2]))
            num_draws = pool.new_zeros(len(begins))
            accepted = num_draws.bool()
        stream, lengths = (pool, None) if free else _fitting_first(pool, [begins[row] for row in active])
        position = first_accepted(stream, lengths, uniform, power)
        done = position >= 0
        here = torch.tensor(active, device=pool.device)
        num_draws[here] = total
        rows = done.nonzero().squeeze(1)
        if len(rows):
            found[here[rows]] = stream[rows, position[rows]]
            accepted[here[rows]] = True
            left = (~done).nonzero().squeeze(1)
            active = [active[row] for row in left.tolist()]
            pool = pool[left]
            uniform = None if uniform is None else uniform[left]
    assert pool is not None
    assert found is not None
    assert accepted is not None
    assert num_draws is not None
    pools = {row: own[fitting(own[None], [begins[row]])[0]] for row, own in zip(active, pool, strict=True)}
    return Search(found, accepted, num_draws, pools)


def _fitting_first(pool: Tensor, begins: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The pool with each row's fitting candidates moved to the front, in their order, and their numbers [R]."""
    fits = fitting(pool, begins)
    order = (~fits).long().sort(dim=1, stable=True).indices
    return pool.gather(1, order.unsqueeze(-1).expand_as(pool)), fits.sum(dim=1)


def first_accepted(pool: Tensor, lengths: Tensor | None, uniform: Tensor | None, power: Power) -> Tensor:
    """Position of the candidate that each row's algorithm accepts, or -1 where the stream is too short to say.

    Args:
        pool: Long [R, M, K], the candidates in the order drawn.
        lengths: Long [R], how many of them count; None for all.
        uniform: [R, M], one number per start; needed if ``power.rest`` > 0.

    Returns:
        Long [R].
    """
    num_rows, size, _ = pool.shape
    position = torch.arange(size, device=pool.device).expand(num_rows, size)
    length = torch.full((num_rows, 1), size, device=pool.device) if lengths is None else lengths[:, None]
    exists = position < length

    # Where the run of equal candidates beginning at q ends: the next change after q, or the end of the stream.
    change = position.new_full((num_rows, size + 1), size)
    differs = (pool[:, 1:] != pool[:, :-1]).any(dim=-1)
    change[:, 1:-1] = position[:, 1:].where(differs, size)
    run_end = change.flip(1).cummin(dim=1).values.flip(1)[:, 1:].minimum(length)
    equal = exists & (run_end - position >= power.whole)
    accept = equal
    # Stops at itself: accepted, or the stream ends before the attempt does.
    jump = torch.where(exists & ~equal & (run_end < length), run_end + 1, position)
    if power.rest:
        assert uniform is not None
        recurs, stops = _next_equal(pool, exists, power.whole), _stop(uniform, power.rest)
        last = position + power.whole - 1
        accept = equal & (recurs < size) & (recurs - last <= stops)
        jump = torch.where(equal & ~accept & (last + stops < length), last + stops + 1, jump)
    jump = torch.cat([jump, position.new_full((num_rows, 1), size)], dim=1)  # the end of the stream leads nowhere
    for _ in range(size.bit_length()):
        jump = jump.gather(1, jump)
    end = jump[:, :1]
    is_accepted = torch.cat([accept, accept.new_zeros((num_rows, 1))], dim=1).gather(1, end)
    return end.where(is_accepted, -1).squeeze(1)


def _next_equal(pool: Tensor, exists: Tensor, distance: int) -> Tensor:
    """Position of the ``distance``-th later candidate equal to the one at q, M if there is none: [R, M]."""
    size = pool.shape[1]
    ids = chunk_ids(pool).where(exists, size)
    ordered, order = ids.sort(dim=1, stable=True)
    later = torch.full_like(order, size)
    if distance < size:
        same = ordered[:, distance:] == ordered[:, :-distance]
        later[:, :-distance] = order[:, distance:].where(same, size)
    return torch.empty_like(later).scatter_(1, order, later)


def _stop(uniform: Tensor, rest: float) -> Tensor:
    """The toss S >= 1 at which an attempt ends, from P(S > i) = (1 - a/1)...(1 - a/i); M + 1 for any beyond M."""
    size = uniform.shape[1]
    toss = torch.arange(1, size + 1, dtype=torch.float64, device=uniform.device)
    survival = (1 - rest / toss).cumprod(dim=0)
    return torch.searchsorted(-survival, -uniform.double()) + 1
