"""Independent continuations of a text at many positions at once.

The text is read once, teacher-forced. The first sampled chunk of a position needs nothing more: it is drawn from the
hidden state that has read the text before the position. Later chunks of all (position, sample) pairs, the nodes, go
through the backbone together: a node attends to its position's prefix in the cached text and to its own earlier
chunks, to nothing else, which a 4-D attention mask says (tree attention).

Shape letters: W windows, L tokens, P positions, S samples, H tokens drawn, K chunk size, d hidden size, Q nodes of a
block (its positions x S).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from calm_bench.lm.base import ChunkLanguageModel

BLOCK_NODES = 128
"""Nodes whose later chunks are computed together. Each attends, masked, to all of its block: large blocks waste
attention, small ones launch many small operations."""


@torch.no_grad()
def sample_continuations(
    model: ChunkLanguageModel,
    windows: Tensor,
    positions: Sequence[int],
    num_samples: int,
    horizon: int,
    generators: Sequence[torch.Generator],
    block_nodes: int = BLOCK_NODES,
) -> Tensor:
    """Continue ``windows[w, :t]`` by ``horizon`` tokens, ``num_samples`` times for every position t.

    Args:
        windows: Long ``[W, L]``.
        positions: increasing multiples of K, each with K <= t <= L.
        num_samples: S.
        horizon: H; the last chunk is drawn whole and cut.
        generators: one per window, on the model's device. A window's continuations are a function of its own
            generator (and of ``block_nodes``), whatever else is in the batch.

    Returns:
        Long ``[W, P, S, H]``, on the model's device.

    Raises:
        ValueError: positions that a model of this chunk size cannot continue, or too few generators.
    """
    chunk_size = model.chunk_size
    _check(windows, positions, chunk_size, num_samples, horizon, generators)
    device = next(model.parameters()).device
    read = torch.tensor([position // chunk_size for position in positions], device=device)
    text = windows[:, : positions[-1]].to(device)
    cache = DynamicCache(config=model.backbone.config)
    hidden = model.backbone(inputs_embeds=model.embed(text), past_key_values=cache, use_cache=True).last_hidden_state

    first = _draw(model, hidden[:, read - 1], num_samples, generators).transpose(1, 2)  # [W, P, S, K]
    num_chunks = -(-horizon // chunk_size)
    if num_chunks == 1:
        return first[..., :horizon]

    per_block = max(1, block_nodes // num_samples)
    later = []
    # From the last positions to the first, so that the cached text only ever has to be shortened.
    for start in reversed(range(0, len(positions), per_block)):
        block = slice(start, start + per_block)
        later.append(_continue(model, first[:, block], read[block], num_chunks, cache, generators))
    return torch.cat([first, torch.cat(later[::-1], dim=1)], dim=-1)[..., :horizon]


def _continue(
    model: ChunkLanguageModel,
    chunks: Tensor,
    read: Tensor,
    num_chunks: int,
    cache: DynamicCache,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The chunks after the first, ``[W, p, S, (num_chunks - 1) * K]``, of a block of p positions.

    ``chunks [W, p, S, K]`` are the first ones, ``read [p]`` the backbone steps of each position's prefix. Leaves
    ``cache`` holding the text up to the block's longest prefix.
    """
    num_windows, num_positions, num_samples, chunk_size = chunks.shape
    longest = int(read[-1])
    _shorten(cache, longest)
    prefix = read.repeat_interleave(num_samples)  # [Q]
    num_nodes = len(prefix)
    sees_text = torch.arange(longest, device=read.device) < prefix[:, None]  # [Q, longest]
    sees_itself = torch.eye(num_nodes, dtype=torch.bool, device=read.device)
    node = chunks.reshape(num_windows, num_nodes, chunk_size)
    drawn = []
    for step in range(num_chunks - 1):
        inputs = model.embed(node.flatten(1))  # [W, Q, d]
        allowed = torch.cat([sees_text, sees_itself.repeat(1, step + 1)], dim=1)
        # Additive rather than boolean, which every attention implementation reads alike.
        mask = torch.zeros(allowed.shape, dtype=inputs.dtype, device=inputs.device)
        mask = mask.masked_fill(~allowed, torch.finfo(inputs.dtype).min)[None, None]
        hidden = model.backbone(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=(prefix + step)[None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        node = _draw(model, hidden, 1, generators)[:, 0]
        drawn.append(node.unflatten(1, (num_positions, num_samples)))
    _shorten(cache, longest)
    return torch.cat(drawn, dim=-1)


def _draw(model: ChunkLanguageModel, hidden: Tensor, num_samples: int, generators: Sequence[torch.Generator]) -> Tensor:
    """``[W, num_samples, ..., K]`` from ``hidden [W, ..., d]``, each window from its own generator."""
    return torch.stack(
        [model.draw(own, num_samples, generator) for own, generator in zip(hidden, generators, strict=True)]
    )


def _shorten(cache: DynamicCache, length: int) -> None:
    cache.crop(length - cache.get_seq_length())  # transformers counts what to remove, as a negative number


def _check(
    windows: Tensor,
    positions: Sequence[int],
    chunk_size: int,
    num_samples: int,
    horizon: int,
    generators: Sequence[torch.Generator],
) -> None:
    if not positions or list(positions) != sorted(set(positions)):
        raise ValueError("positions must be increasing and not empty")
    if positions[0] < chunk_size or positions[-1] > windows.shape[1]:
        raise ValueError(
            f"positions {positions[0]}..{positions[-1]} must lie between the chunk size {chunk_size} and the window "
            f"length {windows.shape[1]}"
        )
    wrong = [position for position in positions if position % chunk_size]
    if wrong:
        raise ValueError(f"position {wrong[0]} is not a multiple of the chunk size {chunk_size}")
    if num_samples < 1 or horizon < 1:
        raise ValueError(f"num_samples {num_samples} and horizon {horizon} must be positive")
    if len(generators) != len(windows):
        raise ValueError(f"{len(windows)} windows need as many generators, found {len(generators)}")
