"""What a model's exact probabilities tell about its continuations of a text, at many positions at once.

The text is read once, teacher-forced, which gives the probability of every target. Then each position is continued
several times, and after every drawn token the collision probability of the next one, ``sum_v p(v)^2``, is taken from
the full distribution. Equal continuations of a position share one pass of the backbone (:mod:`calm_bench.lm.tree`) and
of what draws the tokens inside a chunk.

Shape letters: W windows, L tokens, P positions (p of a block), S samples, H tokens of a target, K tokens of a chunk,
d hidden size, V vocabulary, C chunks that hold targets, N chunks, R rows (windows x p positions), Q samples that go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.finite import one_check, require_finite
from calm_bench.lm.exact import ChunkState, ExactModel, rows_of
from calm_bench.lm.tree import Nodes, Text
from calm_bench.logit_parts import drawn_parts
from calm_bench.sampling.agreement import STOPPED
from calm_bench.sampling.block_sizes import samples_at_once


class Traces(NamedTuple):
    """Probabilities along targets and along drawn continuations."""

    target: Tensor
    """fp32 ``[W, P, H]``: probability of each target token given the text and the targets before it."""
    tokens: Tensor
    """Long ``[W, P, S, H - 1]``: the drawn continuations."""
    collision: Tensor
    """fp32 ``[W, P, S, H]``: ``sum_v p(v)^2`` of the next token after the first 0 to H - 1 drawn ones."""


@torch.no_grad()
@one_check()
def trace_continuations(
    model: ExactModel,
    windows: Tensor,
    positions: Sequence[int],
    num_samples: int,
    horizon: int,
    generators: Sequence[Generator],
    squared: bool = False,
    until_apart: bool = False,
    block_samples: int | None = None,
) -> Traces:
    """Trace ``windows[w, :t]`` for every position t.

    Args:
        windows: Long ``[W, L]``; they hold the targets too.
        positions: increasing, each with K <= t <= L - H and a multiple of K: where a chunk begins.
        num_samples: S.
        horizon: H.
        generators: one per window, on the model's device. A window's traces are a function of its tokens and its own
            generator, up to the rounding of larger matrix products, whatever else is in the batch.
        squared: draw every token with probability proportional to ``p(v)^2`` instead of ``p(v)``.
        until_apart: a sample that has parted from all others of its position is not continued: its later tokens are
            -1, its later collision probabilities 0. All others are those traced without this.
        block_samples: samples continued together, unless a single position of every window has more; unset means as
            many as suit the device. Affects speed and memory only.

    Raises:
        ValueError: positions outside the window or inside a chunk, or too few generators.
        NotFinite: the model gives NaN or infinity.
    """
    _check(windows, positions, horizon, model.chunk_size, generators)
    device, size = generators[0].device, model.chunk_size
    windows = windows.to(device)
    read = torch.tensor(positions, device=device)
    drawn = (len(positions), num_samples, horizon)
    uniform = torch.stack([torch.rand(drawn, generator=own, device=device, dtype=torch.float64) for own in generators])
    # The last target's chunk is predicted and not read.
    text = model.read_text(windows[:, : (positions[-1] + horizon - 1) // size * size])
    require_finite(text.hidden, "hidden states")

    # Chunks that hold targets: their first distributions serve targets and first tokens alike.
    wanted = read[:, None] + torch.arange(horizon, device=device)  # [P, H]
    chunk, column = torch.unique(wanted // size, return_inverse=True)
    # Tokens behind the window's end stand behind all targets, and matter to none.
    inside = (chunk[:, None] * size + torch.arange(size, device=device)).clamp_max(windows.shape[1] - 1)
    hidden, targets = text.hidden[:, chunk - 1].flatten(0, 1), windows[:, inside].flatten(0, 1)  # [W C, d], [W C, K]
    rows = torch.arange(len(windows), device=device)[:, None] * len(chunk) + column[:, 0]  # [W, P]
    first = _draw(
        model,
        model.begin(hidden),
        rows[..., None].expand(-1, -1, num_samples),
        None if horizon == 1 else uniform[..., 0],
        squared,
        targets[:, 0],
    )
    likelihood = torch.cat([first.likelihood[:, None], *_later_likelihoods(model, hidden, targets)], dim=1)
    target = likelihood.unflatten(0, (len(windows), -1))[:, column, wanted % size]
    collision = first.collision[rows]  # [W, P]

    per_block = max(1, (block_samples or samples_at_once(device.type)) // (len(windows) * num_samples))
    blocks = [slice(begin, begin + per_block) for begin in range(0, len(positions), per_block)]
    walks = [
        _Walk(model, text, read[block] // size, uniform[:, block], squared, until_apart).run(
            first.tokens[:, block], collision[:, block]
        )
        for block in blocks
    ]
    tokens, collisions = (torch.cat(parts, dim=1) for parts in zip(*walks, strict=True))
    return Traces(target, tokens, collisions)


def _later_likelihoods(model: ExactModel, hidden: Tensor, chunks: Tensor) -> list[Tensor]:
    """Probabilities ``[N, K - 1]`` of the tokens of ``chunks [N, K]`` but the first, after ``hidden [N, d]`` and the
    tokens before each; none where a chunk is one token."""
    if model.chunk_size == 1:
        return []
    sizes = _rows(model, hidden)
    parts = []
    for block, own in zip(hidden.split(sizes), chunks.split(sizes), strict=True):
        state, found = model.begin(block), []
        for index in range(1, model.chunk_size):
            state = model.advance(state, own[:, index - 1])
            found.append(model.next_probabilities(state).gather(1, own[:, index : index + 1]))
        parts.append(torch.cat(found, dim=1))
    return [torch.cat(parts)]


@dataclass(frozen=True)
class _Walk:
    """The continuations of the positions before which the backbone has read ``read [p]`` chunks; ``uniform [W, p, S,
    H]`` are their random numbers, of which the last of each sample is not needed."""

    model: ExactModel
    text: Text
    read: Tensor
    uniform: Tensor
    squared: bool
    until_apart: bool

    def run(self, first_tokens: Tensor, first_collision: Tensor) -> tuple[Tensor, Tensor]:
        """Drawn tokens ``[W, p, S, H - 1]`` and collision probabilities ``[W, p, S, H]``, of which the first are known:
        ``[W, p, S]`` and, the same for all samples of a position, ``[W, p]``."""
        num_windows, num_positions, num_samples, horizon = self.uniform.shape
        device, shape = self.read.device, (num_windows, num_positions, num_samples)
        tokens = torch.full((*shape, horizon - 1), STOPPED, device=device)
        collision = torch.zeros((*shape, horizon), device=device)
        collision[..., 0] = first_collision[..., None]
        numbers, drawn, collided = self.uniform.flatten(0, 2), tokens.flatten(0, 2), collision.flatten(0, 2)

        samples = torch.arange(len(numbers), device=device)  # Long [Q], those that go on
        node_of, token = samples // num_samples, first_tokens.flatten()
        beginnings = _Beginnings.of(self.model, self.text, self.read)
        for step in range(1, horizon):
            drawn[samples, step - 1] = token
            samples, node_of, pairs = self._distinct(samples, node_of, token)
            if not len(samples):
                break
            vocab_size = self.model.vocab_size
            beginnings = beginnings.followed_by(pairs.div(vocab_size, rounding_mode="floor"), pairs % vocab_size)
            wanted = None if step + 1 == horizon else numbers[samples, step]
            found = _draw(self.model, beginnings.state, node_of, wanted, self.squared)
            collided[samples, step] = found.collision[node_of]
            token = found.tokens
        return tokens, collision

    def _distinct(self, samples: Tensor, node_of: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The samples that go on, which of the new beginnings each is at, and these: distinct pairs of a beginning and
        its next token, ``beginning * V + token``, in the order of the beginnings, hence of windows."""
        pairs, node_of, count = torch.unique(
            node_of * self.model.vocab_size + token, return_inverse=True, return_counts=True
        )
        if not self.until_apart:
            return samples, node_of, pairs
        shared = count > 1
        stays = shared[node_of]
        return samples[stays], (shared.cumsum(0) - 1)[node_of[stays]], pairs[shared]


@dataclass(frozen=True)
class _Beginnings:
    """N distinct beginnings of continuations."""

    model: ExactModel
    nodes: Nodes
    """States of the chunks that the backbone read last."""
    root: Tensor
    """Long ``[N]``: the chunk before, among these."""
    window: Tensor
    prefix: Tensor
    """Long ``[N]``: the window of each, and how many chunks of it are read."""
    chunk: Tensor
    """Long ``[N, k]``, the tokens of the chunk that is being drawn."""
    state: ChunkState
    """What is known of that chunk."""

    @classmethod
    def of(cls, model: ExactModel, text: Text, read: Tensor) -> _Beginnings:
        """The text itself, of which ``read [p]`` chunks are read: R beginnings."""
        num_windows = len(text.hidden)
        root = torch.arange(num_windows * len(read), device=read.device)
        window = torch.arange(num_windows, device=read.device).repeat_interleave(len(read))
        state = model.begin(text.hidden[:, read - 1].flatten(0, 1))
        return cls(model, text.nodes(), root, window, read.repeat(num_windows), root.new_empty((len(root), 0)), state)

    def followed_by(self, parent: Tensor, tokens: Tensor) -> _Beginnings:
        """The beginnings ``parent [M]``, each with one more token."""
        window, prefix, root = self.window[parent], self.prefix[parent], self.root[parent]
        chunk = torch.cat([self.chunk[parent], tokens[:, None]], dim=1)
        if chunk.shape[1] < self.model.chunk_size:
            state = self.model.advance(rows_of(self.state, parent), tokens)
            return _Beginnings(self.model, self.nodes, root, window, prefix, chunk, state)
        hidden = self.model.descend(self.nodes, root, chunk, window, prefix)
        root = torch.arange(len(chunk), device=chunk.device)
        return _Beginnings(self.model, self.nodes, root, window, prefix, chunk[:, :0], self.model.begin(hidden))


class _Drawn(NamedTuple):
    """What N distributions gave."""

    collision: Tensor
    """``[N]``."""
    tokens: Tensor
    """In the shape of the samples' rows."""
    likelihood: Tensor
    """``[N]``, of each row's target; empty without targets."""


def _draw(
    model: ExactModel,
    state: ChunkState,
    row_of: Tensor,
    uniform: Tensor | None,
    squared: bool,
    targets: Tensor | None = None,
) -> _Drawn:
    """Collision probability of the next token of each of N chunks, tokens drawn for it, and probabilities of targets.

    Args:
        row_of: which of the N each sample is at, any shape.
        uniform: a number per sample, of the same shape; None to draw nothing.
        targets: Long ``[N]``.
    """
    sizes = _rows(model, state[0])
    ends = list(accumulate(sizes))
    samples = row_of.flatten()
    tokens = torch.zeros_like(samples)
    collision, likelihood = [], [state[0].new_zeros(0, dtype=torch.float32)]
    of_blocks = [samples] * len(sizes) if uniform is None else _of_blocks(samples, ends)
    distributions = _distributions(model, state, sizes)
    for start, end, here, weights in zip([0, *ends], ends, of_blocks, distributions, strict=False):
        squares = weights.square()
        collision.append(squares.sum(dim=-1))
        if targets is not None:
            likelihood.append(weights.gather(1, targets[start:end, None])[:, 0])
        if uniform is None:
            continue
        row = samples[here] - start
        tokens[here] = _select(squares if squared else weights, row, uniform.flatten()[here])
    collided = torch.cat(collision)
    require_finite(collided, "logits")
    return _Drawn(collided, tokens.view(row_of.shape), torch.cat(likelihood))


def _distributions(model: ExactModel, state: ChunkState, sizes: list[int]) -> Iterator[Tensor]:
    """Distributions ``[n, V]`` of the next token, of ``sizes`` rows after each other. Logits of several of these come
    from one product, for which the matrix library copies the weights once."""
    most, start = blockwise.decoding_rows(model.lm_head.weight), 0
    while sizes:
        count = max(1, sum(end <= most for end in accumulate(sizes)))
        parts, sizes = sizes[:count], sizes[count:]
        end = start + sum(parts)
        logits = model.logits(tuple(part[start:end] for part in state))
        yield from (part.softmax(dim=-1) for part in logits.split(parts))
        start = end


def _of_blocks(rows: Tensor, ends: list[int]) -> list[Tensor]:
    """Which of ``rows``, Long ``[Q]``, lie in each of the blocks with these ends: a GPU is waited for once. Its blocks
    are all as long as the first, but for the last."""
    if len(ends) == 1:
        return [torch.arange(len(rows), device=rows.device)]
    if rows.device.type == "cpu":
        block = torch.bucketize(rows, torch.tensor(ends), right=True)
    else:
        block = rows.div(ends[0], rounding_mode="floor")
    sizes = rows.new_zeros(len(ends)).scatter_add(0, block, torch.ones_like(block))
    return list(block.argsort(stable=True).split(sizes.tolist()))


def _select(weights: Tensor, row: Tensor, uniform: Tensor) -> Tensor:
    """Long ``[q]``, drawn in proportion to ``weights [N, V]`` of each sample's ``row [q]``."""
    cumulative = weights.to(torch.float64, copy=True).cumsum_(dim=-1)
    cumulative /= cumulative[:, -1:].clone()
    # One increasing sequence, row r from r to r + 1, so that a single search serves all samples.
    cumulative += torch.arange(len(cumulative), device=cumulative.device)[:, None]
    found = torch.searchsorted(cumulative.flatten(), row + uniform, right=True)
    return (found - row * weights.shape[1]).clamp(0, weights.shape[1] - 1)


def _rows(model: ExactModel, hidden: Tensor) -> list[int]:
    """Rows of ``hidden [N, d]`` whose distributions are held at once, one block after the other."""
    on_cpu = hidden.device.type == "cpu"
    block = max(1, (blockwise.CACHED_LOGITS if on_cpu else blockwise.CACHED_LOGITS_ON_GPU) // model.vocab_size)
    if on_cpu:
        return drawn_parts(len(hidden), block, model.vocab_size)
    return [min(block, len(hidden) - start) for start in range(0, len(hidden), block)]


def _check(
    windows: Tensor, positions: Sequence[int], horizon: int, chunk_size: int, generators: Sequence[Generator]
) -> None:
    if not positions or list(positions) != sorted(set(positions)):
        raise ValueError("positions must be increasing and not empty")
    if horizon < 1 or positions[0] < chunk_size or positions[-1] + horizon > windows.shape[1]:
        raise ValueError(
            f"positions {positions[0]}..{positions[-1]} with targets of {horizon} tokens do not fit a window of "
            f"{windows.shape[1]}"
        )
    wrong = [position for position in positions if position % chunk_size]
    if wrong:
        raise ValueError(f"position {wrong[0]} is not a multiple of the chunk size {chunk_size}")
    if len(generators) != len(windows):
        raise ValueError(f"{len(windows)} windows need as many generators, found {len(generators)}")
