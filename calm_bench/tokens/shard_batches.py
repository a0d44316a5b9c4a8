"""Batches of a text of which only some shards are at hand: shuffled inside a window that moves over it.

Shapes: B sequences per batch, L tokens per sequence, S shards, w shards of the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calm_bench.seeding import derive, generator
from calm_bench.tokens.shard_cache import ShardCache
from calm_bench.tokens.shard_files import ShardFiles
from calm_bench.tokens.tokenizer import TokensError

if TYPE_CHECKING:
    import torch

AHEAD = 2
"""Shards that are brought before the window reaches them."""

Places = npt.NDArray[np.int64]
"""Of sequences the shard and the first position in it, [n, 2]."""


class ShardBatches:
    """Endless batches, Long ``[B, L]``, in an order that follows from the seed and never from what is at hand.

    An epoch takes the shards in a new order. Each is cut into sequences of L tokens from a random offset below L, none
    of which leaves its shard; these are shuffled and dealt to the w slots that begin with the shard's own. A slot so
    mixes sequences of the last w shards, and the first one needs a single shard. Every sequence is served once an
    epoch; the rest of a shard, shorter than L, is left out.

    Args:
        window: w. That many shards and ``AHEAD`` more are held.

    Raises:
        TokensError: no shard has as many tokens as one sequence.
    """

    def __init__(self, files: ShardFiles, batch_size: int, sequence_length: int, seed: int, window: int) -> None:
        self.batch_size, self.sequence_length, self.seed, self.window = batch_size, sequence_length, seed, window
        self._rows = np.array(files.rows, np.int64)
        if self._rows.max(initial=0) < sequence_length:
            raise TokensError(
                f"no shard of the {files.split} split has as many tokens as one sequence of {sequence_length}: raise "
                "tokens.shard_tokens, use more text, or lower the training's sequence_length"
            )
        self._digest = files.digest
        self.cache = ShardCache(files.bring, files.forget)
        self._enter(epoch=0, slot=0, done=0)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        return self.take()

    def take(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The next batch, of which only ``rows`` (Long, by number) are read; unset, all: [rows, L].

        Raises:
            NotThere, DamagedShard: a shard cannot be brought, or is damaged.
        """
        import torch

        wanted = range(self.batch_size) if rows is None else rows.tolist()
        out = np.empty((len(wanted), self.sequence_length), np.int64)
        numbers: dict[int, list[int]] = {}
        for index, number in enumerate(wanted):
            numbers.setdefault(number, []).append(index)
        for number in range(self.batch_size):
            while self._done == len(self._places):
                self._go_on()
            shard, start = self._places[self._done].tolist()
            self._done += 1
            for index in numbers.get(number, ()):
                # Read at once: a later row of the batch may need other shards.
                out[index] = self.cache.get(shard)[start : start + self.sequence_length]
        return torch.from_numpy(out)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, and what it belongs to; JSON."""
        return {**self._belongs_to(), "epoch": self._epoch, "slot": self._slot, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            TokensError: it was taken from other tokens, another sequence length, window or seed.
        """
        for name, mine in self._belongs_to().items():
            if state.get(name) != mine:
                raise TokensError(f"the saved data position has {name} {state.get(name)}, this run has {mine}")
        self._enter(int(state["epoch"]), int(state["slot"]), int(state["done"]))

    def close(self) -> None:
        """Let go of all shards."""
        self.cache.close()

    def _belongs_to(self) -> dict[str, Any]:
        whole = {"stream": self._digest, "sequence_length": self.sequence_length, "seed": self.seed}
        return {**whole, "shuffle_shards": self.window}

    def _enter(self, epoch: int, slot: int, done: int) -> None:
        self._epoch, self._slot, self._done = epoch, slot, done
        self._order = self._shard_order(epoch)
        self._places = self._slot_places()
        self._want()

    def _go_on(self) -> None:
        """To the next slot, or to the first of the next epoch."""
        last = self._slot == len(self._order) + self.window - 2
        self._enter(self._epoch + last, 0 if last else self._slot + 1, 0)

    def _want(self) -> None:
        """Bring the shards of this slot, and those that come next."""
        now = [int(shard) for shard in self._order[max(0, self._slot - self.window + 1) : self._slot + 1]]
        coming = islice(self._later(), AHEAD)
        self.cache.want(list(dict.fromkeys([*now, *coming])))

    def _later(self) -> Iterator[int]:
        """The shards behind this slot's, over the end of the epoch."""
        yield from self._order[self._slot + 1 :].tolist()
        yield from self._shard_order(self._epoch + 1).tolist()

    def _shard_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return self._shuffled(len(self._rows), "shards", epoch)

    def _slot_places(self) -> Places:
        """The sequences of the slot, shuffled."""
        first, last = max(0, self._slot - self.window + 1), min(self._slot, len(self._order) - 1)
        dealt = [self._dealt(int(self._order[at]), self._slot - at) for at in range(first, last + 1)]
        together = np.concatenate(dealt)
        return together[self._shuffled(len(together), "slot", self._epoch, self._slot)]

    def _dealt(self, shard: int, turn: int) -> Places:
        """The sequences of a shard that its slot number ``turn`` has."""
        length, tokens = self.sequence_length, int(self._rows[shard])
        offsets = max(1, min(length, tokens - length + 1))
        offset = derive(self.seed, "batches", "shard offset", self._epoch, shard) % offsets
        count = max(0, tokens - offset) // length
        order = self._shuffled(count, "shard", self._epoch, shard)
        mine = order[count * turn // self.window : count * (turn + 1) // self.window]
        return np.stack([np.full(len(mine), shard, np.int64), mine * length + offset], axis=1)

    def _shuffled(self, count: int, *what: str | int) -> npt.NDArray[np.int64]:
        import torch

        order: npt.NDArray[np.int64] = torch.randperm(count, generator=generator(self.seed, "batches", *what)).numpy()
        return order
