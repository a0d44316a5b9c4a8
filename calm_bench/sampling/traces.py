"""What a token model's exact probabilities tell about its continuations of a text, at many positions at once.

The text is read once, teacher-forced, which gives the probability of every target. Then each position is continued
several times, and after every drawn token the collision probability of the next one, ``sum_v p(v)^2``, is taken from
the full distribution. Equal continuations of a position share one pass of the backbone (:mod:`.tree`).

Shape letters: W windows, L tokens, P positions (p of a block), S samples, H tokens of a target, d hidden size,
V vocabulary, R rows (windows x p positions), N distinct beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.lm.base import require_finite
from calm_bench.lm.token import TokenModel
from calm_bench.lm.tree import Text

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

    scored, place = torch.unique(read[:, None] - 1 + torch.arange(horizon, device=device), return_inverse=True)
    likelihood = _likelihood(model, text.hidden[:, scored].flatten(0, 1), windows[:, scored + 1].flatten())
    target = likelihood.unflatten(0, (len(windows), -1))[:, place]

    per_block = max(1, block_samples // (len(windows) * num_samples))
    blocks = [slice(begin, begin + per_block) for begin in range(0, len(positions), per_block)]
    walks = [_walk(model, text, read[block], uniform[:, block], squared) for block in blocks]
    tokens, collision = (torch.cat(parts, dim=1) for parts in zip(*walks, strict=True))
    return Traces(target, tokens, collision)


def _walk(model: TokenModel, text: Text, read: Tensor, uniform: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """Drawn tokens ``[W, p, S, H - 1]`` and collision probabilities ``[W, p, S, H]`` of the positions ``read [p]``.

    ``uniform [W, p, S, H]`` are the random numbers; the last of each sample is not needed.
    """
    num_windows, num_positions, num_samples, horizon = uniform.shape
    numbers = uniform.flatten(0, 1)  # [R, S, H]
    hidden = text.hidden[:, read - 1].flatten(0, 1)
    window = torch.arange(num_windows, device=read.device).repeat_interleave(num_positions)
    prefix = read.repeat(num_windows)
    node_of = torch.arange(len(prefix), device=read.device)[:, None].expand(-1, num_samples)  # [R, S]
    nodes = text.nodes()
    tokens: list[Tensor] = []
    collision = []
    for step in range(horizon):
        last = step + 1 == horizon
        collided, token = _draw(model, hidden, node_of, None if last else numbers[..., step], squared)
        collision.append(collided[node_of])
        if last:
            break
        tokens.append(token)
        # The distinct pairs of a beginning and its next token, in the order of the beginnings, hence of windows.
        pairs, node_of = torch.unique(node_of * model.vocab_size + token, return_inverse=True)
        parent = pairs.div(model.vocab_size, rounding_mode="floor")
        window, prefix = window[parent], prefix[parent]
        hidden = nodes.descend(parent, model.embed(pairs % model.vocab_size), window, prefix)
    drawn = torch.stack(tokens, dim=-1) if tokens else node_of.new_empty((*node_of.shape, 0))
    shape = (num_windows, num_positions)
    return drawn.unflatten(0, shape), torch.stack(collision, dim=-1).unflatten(0, shape)


def _likelihood(model: TokenModel, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Probability of ``tokens [N]`` after ``hidden [N, d]``, ``[N]``."""
    rows = _rows(model, hidden)
    parts = [
        model.probabilities(block).gather(1, own[:, None])[:, 0]
        for block, own in zip(hidden.split(rows), tokens.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _draw(
    model: TokenModel, hidden: Tensor, row_of: Tensor, uniform: Tensor | None, squared: bool
) -> tuple[Tensor, Tensor]:
    """Collision probability after each of ``hidden [N, d]``, and tokens drawn after them.

    Args:
        row_of: which of the N each sample is at, any shape.
        uniform: a number per sample, of the same shape; None to draw nothing.

    Returns:
        ``[N]``, and tokens in the shape of ``row_of``.
    """
    rows = _rows(model, hidden)
    samples = row_of.flatten()
    tokens = torch.zeros_like(samples)
    collision = []
    for start in range(0, len(hidden), rows):
        weights = model.probabilities(hidden[start : start + rows])
        squares = weights.square()
        collision.append(squares.sum(dim=-1))
        require_finite(collision[-1], "logits")
        if uniform is None:
            continue
        cumulative = (squares if squared else weights).double().cumsum(dim=-1)
        cumulative /= cumulative[:, -1:].clone()
        # One increasing sequence, row r from r to r + 1, so that a single search serves all samples.
        cumulative += torch.arange(len(cumulative), device=cumulative.device)[:, None]
        here = ((samples >= start) & (samples < start + rows)).nonzero()[:, 0]
        row = samples[here] - start
        found = torch.searchsorted(cumulative.flatten(), row + uniform.flatten()[here], right=True)
        tokens[here] = (found - row * model.vocab_size).clamp(0, model.vocab_size - 1)
    return torch.cat(collision), tokens.view(row_of.shape)


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
