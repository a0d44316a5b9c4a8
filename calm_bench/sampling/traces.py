"""What a token model's exact probabilities tell about its continuations of a text, at many positions at once.

The text is read once, teacher-forced, which gives the probability of every target. Then each position is continued
several times, and after every drawn token the collision probability of the next one, ``sum_v p(v)^2``, is taken from
the full distribution. Equal continuations of a position share one pass of the backbone (:mod:`calm_bench.lm.tree`).

Shape letters: W windows, L tokens, P positions (p of a block), S samples, H tokens of a target, d hidden size,
V vocabulary, N distinct beginnings, Q samples that go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.lm.base import require_finite
from calm_bench.lm.token import TokenModel
from calm_bench.lm.tree import Text
from calm_bench.sampling.agreement import STOPPED

BLOCK_SAMPLES = 4096
"""Samples that are continued together, unless a single position of every window has more."""


class Traces(NamedTuple):
    """Probabilities along targets and along drawn continuations."""

    target: Tensor
    """fp32 ``[W, P, H]``: probability of each target token given the text and the targets before it."""
    tokens: Tensor
    """Long ``[W, P, S, H - 1]``: the drawn continuations."""
    collision: Tensor
    """fp32 ``[W, P, S, H]``: ``sum_v p(v)^2`` of the next token after the first 0 to H - 1 drawn ones."""


@torch.no_grad()
def trace_continuations(
    model: TokenModel,
    windows: Tensor,
    positions: Sequence[int],
    num_samples: int,
    horizon: int,
    generators: Sequence[Generator],
    squared: bool = False,
    until_apart: bool = False,
    block_samples: int = BLOCK_SAMPLES,
) -> Traces:
    """Trace ``windows[w, :t]`` for every position t.

    Args:
        windows: Long ``[W, L]``; they hold the targets too.
        positions: increasing, each with 1 <= t <= L - H.
        num_samples: S.
        horizon: H.
        generators: one per window, on the model's device. A window's traces are a function of its tokens and its own
            generator, up to the rounding of larger matrix products, whatever else is in the batch.
        squared: draw every token with probability proportional to ``p(v)^2`` instead of ``p(v)``.
        until_apart: a sample that has parted from all others of its position is not continued: its later tokens are
            -1, its later collision probabilities 0. All others are those traced without this.
        block_samples: affects speed and memory only.

    Raises:
        ValueError: positions outside the window, or too few generators.
        NotFinite: the model gives NaN or infinity.
    """
    _check(windows, positions, horizon, generators)
    device = generators[0].device
    windows = windows.to(device)
    read = torch.tensor(positions, device=device)
    size = (len(positions), num_samples, horizon)
    uniform = torch.stack([torch.rand(size, generator=own, device=device, dtype=torch.float64) for own in generators])
    text = model.read_text(windows[:, : positions[-1] + horizon - 1])
    require_finite(text.hidden, "hidden states")

    # One pass over the text's distributions serves targets and first tokens; place [P, H] is where each is among them.
    scored, place = torch.unique(read[:, None] - 1 + torch.arange(horizon, device=device), return_inverse=True)
    rows = torch.arange(len(windows), device=device)[:, None] * len(scored) + place[:, 0]  # [W, P]
    first = _draw(
        model,
        text.hidden[:, scored].flatten(0, 1),
        rows[..., None].expand(-1, -1, num_samples),
        None if horizon == 1 else uniform[..., 0],
        squared,
        windows[:, scored + 1].flatten(),
    )
    target = first.likelihood.unflatten(0, (len(windows), -1))[:, place]
    collision = first.collision[rows]  # [W, P]

    per_block = max(1, block_samples // (len(windows) * num_samples))
    blocks = [slice(begin, begin + per_block) for begin in range(0, len(positions), per_block)]
    walks = [
        _Walk(model, text, read[block], uniform[:, block], squared, until_apart).run(
            first.tokens[:, block], collision[:, block]
        )
        for block in blocks
    ]
    tokens, collisions = (torch.cat(parts, dim=1) for parts in zip(*walks, strict=True))
    return Traces(target, tokens, collisions)


@dataclass(frozen=True)
class _Walk:
    """The continuations of the positions ``read [p]``; ``uniform [W, p, S, H]`` are their random numbers, of which the
    last of each sample is not needed."""

    model: TokenModel
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

        window = torch.arange(num_windows, device=device).repeat_interleave(num_positions)
        prefix = self.read.repeat(num_windows)
        nodes = self.text.nodes()
        samples = torch.arange(len(numbers), device=device)  # Long [Q], those that go on
        node_of, token = samples // num_samples, first_tokens.flatten()
        for step in range(1, horizon):
            drawn[samples, step - 1] = token
            samples, node_of, pairs = self._distinct(samples, node_of, token)
            if not len(samples):
                break
            parent = pairs.div(self.model.vocab_size, rounding_mode="floor")
            window, prefix = window[parent], prefix[parent]
            hidden = nodes.descend(parent, self.model.embed(pairs % self.model.vocab_size), window, prefix)
            wanted = None if step + 1 == horizon else numbers[samples, step]
            found = _draw(self.model, hidden, node_of, wanted, self.squared)
            collided[samples, step] = found.collision[node_of]
            token = found.tokens
        return tokens, collision

    def _distinct(self, samples: Tensor, node_of: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The samples that go on, which of the new nodes each is at, and these: distinct pairs of a beginning and its
        next token, ``node * V + token``, in the order of the beginnings, hence of windows."""
        pairs, node_of, count = torch.unique(
            node_of * self.model.vocab_size + token, return_inverse=True, return_counts=True
        )
        if not self.until_apart:
            return samples, node_of, pairs
        shared = count > 1
        stays = shared[node_of]
        return samples[stays], (shared.cumsum(0) - 1)[node_of[stays]], pairs[shared]


class _Drawn(NamedTuple):
    """What N distributions gave."""

    collision: Tensor
    """``[N]``."""
    tokens: Tensor
    """In the shape of the samples' rows."""
    likelihood: Tensor
    """``[N]``, of each row's target; empty without targets."""


def _draw(
    model: TokenModel,
    hidden: Tensor,
    row_of: Tensor,
    uniform: Tensor | None,
    squared: bool,
    targets: Tensor | None = None,
) -> _Drawn:
    """Collision probability after each of ``hidden [N, d]``, tokens drawn after them, and probabilities of targets.

    Args:
        row_of: which of the N each sample is at, any shape.
        uniform: a number per sample, of the same shape; None to draw nothing.
        targets: Long ``[N]``.
    """
    rows = _rows(model, hidden)
    samples = row_of.flatten()
    tokens = torch.zeros_like(samples)
    collision, likelihood = [], [hidden.new_zeros(0, dtype=torch.float32)]
    for start in range(0, len(hidden), rows):
        weights = model.probabilities(hidden[start : start + rows])
        squares = weights.square()
        collision.append(squares.sum(dim=-1))
        require_finite(collision[-1], "logits")
        if targets is not None:
            likelihood.append(weights.gather(1, targets[start : start + rows, None])[:, 0])
        if uniform is None:
            continue
        here = ((samples >= start) & (samples < start + rows)).nonzero()[:, 0]
        row = samples[here] - start
        tokens[here] = _select(squares if squared else weights, row, uniform.flatten()[here])
    return _Drawn(torch.cat(collision), tokens.view(row_of.shape), torch.cat(likelihood))


def _select(weights: Tensor, row: Tensor, uniform: Tensor) -> Tensor:
    """Long ``[q]``, drawn in proportion to ``weights [N, V]`` of each sample's ``row [q]``."""
    cumulative = weights.double().cumsum(dim=-1)
    cumulative /= cumulative[:, -1:].clone()
    # One increasing sequence, row r from r to r + 1, so that a single search serves all samples.
    cumulative += torch.arange(len(cumulative), device=cumulative.device)[:, None]
    found = torch.searchsorted(cumulative.flatten(), row + uniform, right=True)
    return (found - row * weights.shape[1]).clamp(0, weights.shape[1] - 1)


def _rows(model: TokenModel, hidden: Tensor) -> int:
    """Rows whose distributions are held at once."""
    logits = blockwise.CACHED_LOGITS if hidden.device.type == "cpu" else blockwise.MAX_LOGITS
    return max(1, logits // model.vocab_size)


def _check(windows: Tensor, positions: Sequence[int], horizon: int, generators: Sequence[Generator]) -> None:
    if not positions or list(positions) != sorted(set(positions)):
        raise ValueError("positions must be increasing and not empty")
    if horizon < 1 or positions[0] < 1 or positions[-1] + horizon > windows.shape[1]:
        raise ValueError(
            f"positions {positions[0]}..{positions[-1]} with targets of {horizon} tokens do not fit a window of "
            f"{windows.shape[1]}"
        )
    if len(generators) != len(windows):
        raise ValueError(f"{len(windows)} windows need as many generators, found {len(generators)}")
