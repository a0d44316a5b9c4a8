"""Sampling the next chunk at a temperature, for a batch of hidden states.

A model without likelihood has a temperature made of repeated samples: exactly (:mod:`.exact`), or from a pool of N
candidates (:mod:`.batch`). What the exact algorithm takes depends on how often two samples agree, from a few draws to
more than can be waited for; a pool always takes N. A model of softmaxes (:mod:`calm_bench.lm.exact`) has the usual one,
the scaling of its logits, token by token.

Shape letters: R rows, K tokens of a chunk, d hidden size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from calm_bench.heads.noise import RowSources
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.exact import ExactModel
from calm_bench.sampling.batch import acceptance, choose, draw_fitting_pool, draw_pool
from calm_bench.sampling.exact import search
from calm_bench.sampling.pool import Source, fitting
from calm_bench.sampling.power import Power

Method = Literal["exact", "batch", "auto"]
MAX_DRAWS = 4096
"""Candidates drawn for one chunk of one row before a fallback."""
CANDIDATES = 200
"""N of the batch approximation, the reference's."""


@dataclass(frozen=True)
class Decoding:
    """How chunks are sampled.

    Raises:
        ValueError: a temperature outside (0, 1] or numbers below 1.
    """

    temperature: float = 1.0
    method: Method = "exact"
    """``auto`` is exact for chunks that the exact algorithm accepts within N candidates. Where it does not, these N are
    the pool of the batch approximation, so it never draws more. At T = 1 all methods are a single sample."""
    candidates: int = CANDIDATES
    """N of the batch approximation."""
    max_draws: int = MAX_DRAWS
    """Candidates of one chunk before the exact algorithm gives up and chooses among them as the batch approximation
    does. The same bound holds for finding chunks that begin with known tokens."""

    def __post_init__(self) -> None:
        Power.of_temperature(self.temperature)
        if self.method not in get_args(Method):
            raise ValueError(f"method {self.method!r} is none of {', '.join(get_args(Method))}")
        if self.candidates < 1 or self.max_draws < 1:
            raise ValueError(f"candidates {self.candidates} and max_draws {self.max_draws} must be at least 1")

    @property
    def power(self) -> Power:
        return Power.of_temperature(self.temperature)

    @property
    def label(self) -> str:
        """As it stands beside a cost, for instance ``sample T=0.5 (batch of 200)``."""
        if self.temperature == 1:
            return "sample T=1"
        how = {"exact": "exact", "batch": f"batch of {self.candidates}", "auto": f"auto up to {self.candidates}"}[
            self.method
        ]
        return f"sample T={self.temperature:g} ({how})"


@dataclass(frozen=True)
class Sampled:
    """One chunk per row, and what it cost."""

    chunks: Tensor
    """Long [R, K]; zeros in a row that is not ``found``."""
    found: Tensor
    """Bool [R]: false if no candidate began with the row's known tokens."""
    approximated: Tensor
    """Bool [R]: the exact algorithm accepted nothing within its draws, and the chunk was chosen among the candidates by
    the batch approximation's weights."""
    acceptance: Tensor
    """fp64 [R], on the CPU: for an approximated row, the probability that one attempt of the exact algorithm succeeds,
    as far as the candidates tell it; 0 elsewhere."""
    head_evaluations: Tensor
    """Long [R]: samples of the head; of a model of softmaxes, chunks."""
    decoder_evaluations: Tensor
    """Long [R]: latents decoded to tokens; none for a model of softmaxes."""


@torch.no_grad()
def sample_chunks(
    model: ChunkLanguageModel,
    hidden: Tensor,
    decoding: Decoding,
    generators: Sequence[Generator],
    begins: Sequence[Sequence[int]] | None = None,
) -> Sampled:
    """The next chunk of every row, from P(x)^(1/T) normalised over all chunks that begin with the row's known tokens.

    A model of softmaxes draws each token x_k from P(x_k | before)^(1/T), normalised over the vocabulary, as is usual.

    Args:
        hidden: [R, d].
        generators: one per row, on the model's device. A row's chunk is a function of its hidden state and its own
            generator, whatever else is in the batch.
        begins: known first tokens of each row's chunk, fewer than K; None for none.

    Raises:
        ValueError: not one generator per row, or known tokens that fill a chunk.
    """
    known = [list(begin) for begin in begins] if begins is not None else [[] for _ in generators]
    if not len(hidden) == len(generators) == len(known):
        raise ValueError(f"{len(hidden)} rows need as many generators, found {len(generators)}")
    if max(len(begin) for begin in known) >= model.chunk_size:
        raise ValueError(f"fewer than {model.chunk_size} tokens of a chunk can be known before it is sampled")
    if isinstance(model, ExactModel):
        return _sample_tokens(model, hidden, decoding, generators, known)
    return sample_from(_ModelSource(model, hidden, generators), known, decoding)


def draws_once(model: ChunkLanguageModel, decoding: Decoding, begins: Sequence[Sequence[int]]) -> bool:
    """Whether :func:`sample_chunks` draws each row once, and so decides nothing by what was drawn."""
    return isinstance(model, ExactModel) or (decoding.temperature == 1 and not any(begins))


def draw_once(
    model: ChunkLanguageModel,
    hidden: Tensor,
    decoding: Decoding,
    generators: Sequence[Generator],
    begins: Sequence[Sequence[int]],
) -> Tensor:
    """The chunks of :func:`sample_chunks` where :func:`draws_once` holds, Long [R, K]: all are found, none is
    approximated, and each cost one sample."""
    if isinstance(model, ExactModel):
        uniform = RowSources(hidden, 1, generators).uniform(model.chunk_size)[0]
        return model.draw_tempered(hidden, uniform, decoding.power.value, begins)
    return model.draw_rows(hidden, 1, generators)[0]


def sample_from(source: Source, begins: list[list[int]], decoding: Decoding) -> Sampled:
    """As :func:`sample_chunks`, from any source of candidates; one row per list of known tokens."""
    if decoding.method == "batch" and decoding.temperature < 1:
        return _sample_batch(source, begins, decoding)
    if decoding.method == "exact" or decoding.temperature == 1:
        return _sample_exact(source, begins, decoding.power, decoding.max_draws)
    # Known tokens have to be found first, for which N draws may not do.
    limits = {False: min(decoding.candidates, decoding.max_draws), True: decoding.max_draws}
    parts = []
    for is_known, limit in limits.items():
        rows = [row for row, begin in enumerate(begins) if bool(begin) == is_known]
        if rows:
            own = [begins[row] for row in rows]
            parts.append((rows, _sample_exact(_SomeRows(source, rows), own, decoding.power, limit)))
    return _merged(parts)


def _merged(parts: list[tuple[list[int], Sampled]]) -> Sampled:
    """What was sampled for some rows each, in the order of all."""
    order = torch.tensor([row for rows, _ in parts for row in rows]).argsort()
    together = {
        field.name: torch.cat([getattr(own, field.name) for _, own in parts]) for field in dataclasses.fields(Sampled)
    }
    return Sampled(**{name: values[order.to(values.device)] for name, values in together.items()})


class _SomeRows:
    """A source of which only some rows take part."""

    def __init__(self, source: Source, rows: list[int]) -> None:
        self._source, self._rows = source, rows

    def chunks(self, rows: list[int], count: int) -> Tensor:
        return self._source.chunks([self._rows[row] for row in rows], count)

    def uniform(self, rows: list[int], count: int) -> Tensor:
        return self._source.uniform([self._rows[row] for row in rows], count)


def _sample_exact(source: Source, begins: list[list[int]], power: Power, max_draws: int) -> Sampled:
    result = search(source, begins, power, max_draws)
    chunks, found = result.chunks, result.accepted.clone()
    likely = torch.zeros(len(begins), dtype=torch.float64)
    by_size: dict[int, list[int]] = {}
    for row, pool in result.pools.items():
        by_size.setdefault(len(pool), []).append(row)
    for size, rows in by_size.items():
        if size:
            pools = torch.stack([result.pools[row] for row in rows])
            chunks[rows] = choose(pools, power, source.uniform(rows, 1)[:, 0])
            found[rows] = True
            likely[rows] = acceptance(pools, power).cpu()
    return Sampled(chunks, found, found & ~result.accepted, likely, result.num_draws, result.num_draws)


def _sample_batch(source: Source, begins: list[list[int]], decoding: Decoding) -> Sampled:
    rows, power = list(range(len(begins))), decoding.power
    free = [row for row in rows if not begins[row]]
    results: dict[int, tuple[Tensor, int]] = {}
    if free:
        pool = draw_pool(source, free, decoding.candidates)
        chosen = choose(pool, power, source.uniform(free, 1)[:, 0])
        results |= {row: (chunk, decoding.candidates) for row, chunk in zip(free, chosen, strict=True)}
    missing = []
    for row in rows:
        if begins[row]:
            pool = draw_fitting_pool(source, row, begins[row], decoding.candidates, decoding.max_draws)
            fits = fitting(pool, [begins[row]])
            if bool(fits.any()):
                chunk = choose(pool, power, source.uniform([row], 1)[:, 0], fits)[0]
            else:
                chunk = torch.zeros_like(pool[0, 0])
                missing.append(row)
            results[row] = (chunk, pool.shape[1])
    chunks = torch.stack([results[row][0] for row in rows])
    num_draws = torch.tensor([results[row][1] for row in rows], device=chunks.device)
    found = torch.ones(len(rows), dtype=torch.bool, device=chunks.device)
    found[missing] = False
    none = torch.zeros(len(rows), dtype=torch.float64)
    return Sampled(chunks, found, torch.zeros_like(found), none, num_draws, num_draws)


def _sample_tokens(
    model: ExactModel,
    hidden: Tensor,
    decoding: Decoding,
    generators: Sequence[Generator],
    known: Sequence[Sequence[int]],
) -> Sampled:
    chunks = draw_once(model, hidden, decoding, generators, known)
    ones = torch.ones(len(hidden), dtype=torch.long, device=hidden.device)
    none = torch.zeros(len(hidden), dtype=torch.float64)
    return Sampled(chunks, ones.bool(), torch.zeros_like(ones).bool(), none, ones, torch.zeros_like(ones))


class _ModelSource:
    """Candidates from a model's hidden states."""

    def __init__(self, model: ChunkLanguageModel, hidden: Tensor, generators: Sequence[Generator]) -> None:
        self._model, self._hidden, self._generators = model, hidden, generators

    def chunks(self, rows: list[int], count: int) -> Tensor:
        hidden = self._hidden if len(rows) == len(self._hidden) else self._hidden[rows]
        return self._model.draw_rows(hidden, count, [self._generators[row] for row in rows]).transpose(0, 1)

    def uniform(self, rows: list[int], count: int) -> Tensor:
        device = self._hidden.device
        drawn = [torch.rand(count, dtype=torch.float64, generator=self._generators[row], device=device) for row in rows]
        return torch.stack(drawn)
