"""Independent continuations of a text at many positions at once.

The text is read once, teacher-forced. The first sampled chunk of a position needs nothing more: it is drawn from the
hidden state that has read the text before the position. Later chunks go through the backbone together, for all windows
and many positions: :mod:`.tree`. Four things keep this small:

- samples of a position that agree so far share one pass of the backbone;
- with targets, a sample that agrees neither with the target nor with any other sample of its position is given up,
  inside a chunk too, whose tokens are decoded one after the other; past the targets' end only other samples count;
- with targets, the first token of a position's last sample is looked for only where it may be the target or that of
  another sample;
- positions are taken a block at a time, and vocabulary-sized results a block of rows at a time, so that memory does not
  grow with the length of the text times the vocabulary.

None of them changes what is drawn: :mod:`.window_noise` says where random numbers come from.

Shape letters: W windows, L tokens, P positions, p positions of a block, S samples, H tokens drawn, K chunk size, d
hidden size, N nodes (distinct beginnings), Q samples that go on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calm_bench.finite import one_check, require_finite
from calm_bench.lm.base import ChunkLanguageModel, LazyChunks
from calm_bench.lm.tree import Text
from calm_bench.sampling.agreement import Agreement
from calm_bench.sampling.block_sizes import samples_at_once
from calm_bench.sampling.window_noise import Units


@torch.no_grad()
@one_check()
def sample_continuations(
    model: ChunkLanguageModel,
    windows: Tensor,
    positions: Sequence[int],
    num_samples: int,
    horizon: int,
    generators: Sequence[torch.Generator],
    targets: Tensor | None = None,
    block_samples: int | None = None,
) -> Tensor:
    """Continue ``windows[w, :t]`` by ``horizon`` tokens, ``num_samples`` times for every position t.

    Args:
        windows: Long ``[W, L]``.
        positions: increasing multiples of K, each with K <= t <= L.
        num_samples: S.
        horizon: H; the last chunk is drawn whole and cut.
        generators: one per window, on the model's device. A window's continuations are a function of its tokens and its
            own generator, up to the rounding of larger matrix products, whatever else is in the batch.
        targets: Long ``[W, P, h]``, the first h <= H tokens of the true continuations. A sample that differs from the
            target, or has reached its end, and differs from every other sample of its position is not continued, since
            no longer n-gram of it can match anything: its later tokens are -1, and so may be the one that differs. All
            others are those drawn without targets.
        block_samples: samples continued together, unless a single unit of every window has more; unset means as many as
            suit the device. Affects speed and memory only.

    Returns:
        Long ``[W, P, S, H]``, on the model's device.

    Raises:
        ValueError: positions that a model of this chunk size cannot continue, too few generators, or other targets.
        NotFinite: the model gives NaN or infinity.
    """
    chunk_size = model.chunk_size
    _check(windows, positions, chunk_size, num_samples, horizon, generators, targets)
    device = next(model.parameters()).device
    num_chunks = -(-horizon // chunk_size)
    units = Units(generators, len(positions), num_samples, num_chunks)
    text = model.read_text(windows[:, : positions[-1]].to(device))
    require_finite(text.hidden, "hidden states")
    wanted = None if targets is None else targets.to(device)
    read = torch.tensor([position // chunk_size for position in positions], device=device)

    per_unit = len(windows) * units.positions * num_samples
    per_block = units.positions * max(1, (block_samples or samples_at_once(device.type)) // per_unit)
    parts = []
    for begin in range(0, len(positions), per_block):
        block = slice(begin, min(begin + per_block, len(positions)))
        own = None if wanted is None else wanted[:, block]
        parts.append(_continue(model, text, block, read[block], num_samples, horizon, units, own))
    return torch.cat(parts, dim=1)


def _continue(
    model: ChunkLanguageModel,
    text: Text,
    block: slice,
    read: Tensor,
    num_samples: int,
    horizon: int,
    units: Units,
    targets: Tensor | None,
) -> Tensor:
    """Long ``[W, p, S, H]``; ``read`` [p] are the backbone's steps before each position."""
    chunk_size = model.chunk_size
    hidden = text.hidden[:, read - 1]  # [W, p, d]
    num_windows, num_positions, _ = hidden.shape
    num_rows = num_windows * num_positions
    window = torch.arange(num_rows, device=hidden.device) // num_positions
    prefix = read.repeat(num_windows)
    wanted = None if targets is None else targets.flatten(0, 1)
    agreement = Agreement(num_rows, num_samples, horizon, wanted, hidden.device)

    # Drafts of the first chunk are in the order [S, W x p], all others in the order of the samples that go on.
    draft = model.draft(hidden.flatten(0, 1), units.noise(block, 0))
    samples = torch.arange(num_rows * num_samples, device=hidden.device)
    order = samples % num_samples * num_rows + samples // num_samples
    nodes = text.nodes()
    node_of = torch.zeros((num_rows, num_samples), dtype=torch.long, device=hidden.device)
    for chunk, begin in enumerate(range(0, horizon, chunk_size)):
        if chunk:
            samples = agreement.samples()
            if len(samples) == 0:
                break
            leader = agreement.leader()
            leads = agreement.goes_on & (leader == torch.arange(num_samples, device=hidden.device))
            row, sample = leads.nonzero(as_tuple=True)  # [N], in the order of windows
            chunks = agreement.tokens[row, sample, begin - chunk_size : begin]
            states = model.descend(nodes, node_of[row, sample], chunks, window[row], prefix[row])
            number = torch.zeros_like(node_of)
            number[row, sample] = torch.arange(len(row), device=hidden.device)
            node_of = number.gather(1, leader)
            draft = model.draft_each(states, node_of.flatten()[samples], units.noise(block, chunk, samples))
            order = torch.arange(len(samples), device=hidden.device)
        for index in range(min(chunk_size, horizon - begin)):
            if index and targets is not None:
                still = agreement.goes_on.flatten()[samples]
                samples, order = samples[still], order[still]
            if begin + index == 0 and wanted is not None and draft.pays_to_know(len(samples)):
                tokens = _first_tokens(draft, order.view(num_rows, num_samples), wanted[:, :1])
            else:
                tokens = draft.token(index, order)
            agreement.add(begin + index, samples, tokens)
    drawn: Tensor = agreement.tokens.unflatten(0, (num_windows, num_positions))
    return drawn


def _first_tokens(draft: LazyChunks, order: Tensor, targets: Tensor) -> Tensor:
    """Long [R x S] of samples that are ``order`` [R, S] in ``draft``; of a row's last sample -1 perhaps, if it is no
    other's nor the target, [R, 1]."""
    others = draft.token(0, order[:, :-1].flatten()).view(len(order), -1)
    last = draft.token(0, order[:, -1], torch.cat([others, targets], dim=1))
    return torch.cat([others, last[:, None]], dim=1).flatten()


def _check(
    windows: Tensor,
    positions: Sequence[int],
    chunk_size: int,
    num_samples: int,
    horizon: int,
    generators: Sequence[torch.Generator],
    targets: Tensor | None,
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
    expected = (len(windows), len(positions), horizon)
    if targets is not None and (targets.shape[:-1] != expected[:-1] or targets.shape[-1] > horizon):
        raise ValueError(f"targets {list(targets.shape)} do not belong to continuations of shape {list(expected)}")
