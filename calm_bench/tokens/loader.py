"""Packed sequences for training, in a shuffled order that can be resumed, and fixed windows for evaluation.

Shapes: B sequences per batch, L tokens per sequence, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from calm_bench.seeding import derive, generator
from calm_bench.tokens.stream import TokenStream
from calm_bench.tokens.tokenizer import TokensError

if TYPE_CHECKING:
    import torch


class Windows(NamedTuple):
    """Evaluation windows and where they begin."""

    tokens: torch.Tensor
    """Long ``[W, L]``."""
    starts: torch.Tensor
    """Long ``[W]``, position of each window's first token in the stream."""


class Batches:
    """Endless batches, Long ``[B, L]``: each epoch visits non-overlapping windows of L tokens in a new order.

    An epoch's windows begin at a random offset below L, so the places where chunks of K tokens are cut change from
    epoch to epoch; L itself must be a multiple of K. A batch that reaches the end of an epoch goes on with the next
    one, so every batch is full, and a stream shorter than a batch repeats its windows.

    Raises:
        TokensError: the stream is shorter than one sequence.
    """

    def __init__(self, stream: TokenStream, batch_size: int, sequence_length: int, seed: int) -> None:
        if len(stream) < sequence_length:
            raise TokensError(
                f"the {stream.split} split has {len(stream)} tokens, fewer than one sequence of {sequence_length}; "
                "use more text, or lower model.training.sequence_length and autoencoder.training.sequence_length"
            )
        self.stream = stream
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.seed = seed
        self._epoch = 0
        self._next = 0
        """Windows of this epoch already served."""
        self._order = self._epoch_order(0)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        return self.take()

    def take(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The next batch, of which only ``rows`` (Long, by number) are read; unset, all: [rows, L]."""
        import torch

        starts: list[npt.NDArray[np.int64]] = []
        missing = self.batch_size
        while missing:
            if self._next == len(self._order):
                self._epoch, self._next = self._epoch + 1, 0
                self._order = self._epoch_order(self._epoch)
            taken = self._order[self._next : self._next + missing]
            starts.append(taken)
            self._next += len(taken)
            missing -= len(taken)
        every = np.concatenate(starts)
        wanted = every if rows is None else every[rows.numpy()]
        return torch.from_numpy(self.stream.gather(wanted, self.sequence_length))

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, and what it belongs to; JSON."""
        return {**self._belongs_to(), "epoch": self._epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            TokensError: it was taken from other tokens, another sequence length or another seed. The batch size may
                differ: the order of sequences does not depend on it.
        """
        for name, mine in self._belongs_to().items():
            if state.get(name) != mine:
                raise TokensError(f"the saved data position has {name} {state.get(name)}, this run has {mine}")
        self._epoch, self._next = int(state["epoch"]), int(state["next"])
        self._order = self._epoch_order(self._epoch)

    def close(self) -> None:
        """Nothing is to be let go of: the text stays mapped for whoever else reads it."""

    def _belongs_to(self) -> dict[str, Any]:
        return {"stream": self.stream.digest, "sequence_length": self.sequence_length, "seed": self.seed}

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        """First positions of the epoch's windows, shuffled."""
        import torch

        length = self.sequence_length
        offsets = min(length, len(self.stream) - length + 1)
        offset = derive(self.seed, "batches", "offset", epoch) % offsets
        count = (len(self.stream) - offset) // length
        order = torch.randperm(count, generator=generator(self.seed, "batches", "order", epoch))
        starts: npt.NDArray[np.int64] = order.numpy() * length + offset
        return starts


def windows(stream: TokenStream, length: int, max_windows: int | None = None) -> Windows:
    """Windows of ``length`` tokens that tile the stream from its start; a rest shorter than ``length`` is left out.

    With ``max_windows`` smaller than the number of tiles, that many are taken at even distances over the stream,
    so that a small evaluation still sees all of the split.

    Raises:
        TokensError: the stream is shorter than one window.
    """
    import torch

    tiles = len(stream) // length
    if not tiles:
        raise TokensError(
            f"the {stream.split} split has {len(stream)} tokens, fewer than one window of {length}; "
            f"use more text, raise corpus.{stream.split}_fraction, or shorten the window (sequence_length of the "
            "training)"
        )
    count = tiles if max_windows is None else min(tiles, max_windows)
    starts = np.arange(count, dtype=np.int64) * tiles // count * length
    return Windows(torch.from_numpy(stream.gather(starts, length)), torch.from_numpy(starts))


def different_chunks(stream: TokenStream, length: int, span: int) -> torch.Tensor:
    """Long ``[chunks, span]``: windows of ``length`` tokens that tile the stream, each cut into chunks from its start.

    Chunks of documents that are copies of earlier ones are left out: they tell nothing that is not known, and would
    make errors over chunks too small.

    Raises:
        TokensError: the stream is shorter than one window.
    """
    import torch

    found = windows(stream, length)
    count = length // span
    chunks = found.tokens[:, : count * span].reshape(-1, span)
    copied = stream.copied_documents()
    if not copied.any():
        return chunks
    last = (found.starts[:, None] + torch.arange(count) * span).reshape(-1) + span - 1
    kept = chunks[torch.from_numpy(~copied[stream.document_of(last.numpy())])]
    # Chunks may be longer than all first copies.
    return kept if len(kept) else chunks
