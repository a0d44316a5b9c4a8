"""Keys and values of texts that are read bit by bit.

Shape letters: R rows, L steps read so far, n steps read now, H attention heads, G key-value heads, e size of a head.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from calm_bench.lm.backbone import Attention, attend
from calm_bench.lm.fused import FusedBackbone


class LayerCache:
    """Keys and values of one layer. Room doubles when it is used up, so that most steps copy nothing but themselves."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        """[R, G, room, e]."""
        self._values: Tensor | None = None
        self.length = 0

    @property
    def keys(self) -> Tensor:
        """[R, G, L, e], rotated."""
        assert self._keys is not None
        return self._keys.narrow(2, 0, self.length)

    @property
    def values(self) -> Tensor:
        """[R, G, L, e]."""
        assert self._values is not None
        return self._values.narrow(2, 0, self.length)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Append ``key`` and ``value`` [R, n, G, e], and attend from ``query`` [R, n, H, e] to all that is held then.

        Args:
            mask: Bool [R, n, L + n]; unset means that every step sees all steps up to itself.
        """
        before, count = self.length, query.shape[1]
        self.append(key.transpose(1, 2), value.transpose(1, 2))
        if mask is None and before and count > 1:
            mask = torch.ones((count, self.length), dtype=torch.bool, device=query.device).tril(before)[None]
        return attend(query, self.keys, self.values, mask, is_causal=mask is None and count > 1)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but ``rows``, Long."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Hold ``keys`` and ``values`` [R, G, n, e] too."""
        before, more = self.length, keys.shape[2]
        self._keys, self._values = self._roomy(self._keys, keys), self._roomy(self._values, values)
        self._keys.narrow(2, before, more).copy_(keys)
        self._values.narrow(2, before, more).copy_(values)
        self.length = before + more

    def _roomy(self, held: Tensor | None, new: Tensor) -> Tensor:
        """``held``, or a larger one that holds as much, with room for ``new`` too."""
        rows, groups, more, size = new.shape
        needed = self.length + more
        if held is None:
            return new.new_empty((rows, groups, needed, size))
        if needed <= held.shape[2]:
            return held
        larger = new.new_empty((rows, groups, max(needed, 2 * held.shape[2]), size))
        larger.narrow(2, 0, self.length).copy_(held.narrow(2, 0, self.length))
        return larger


class Cache:
    """Keys and values of all layers."""

    fused: FusedBackbone | None = None
    """Reads in place of the model's own backbone."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self._positions: Tensor | None = None
        """Where attention stays inside documents: the position of every held step in its row's text, Long [R, L]."""
        self._start: Tensor | None = None
        """And that of the step which began each row's document, Long [R, 1]."""

    def attentions(self, num_steps: int, mask: Tensor | None = None) -> list[Attention]:
        """Attentions of each layer, for ``num_steps`` steps that are to be read and held.

        Args:
            mask: Bool [R, L + n], true at steps of the row's text; others are padding, which nobody sees. Unset means
                that there is none.
        """
        seen = seen_steps(num_steps, mask)
        return [partial(layer.attend, mask=seen) for layer in self.layers]

    def document_starts(self, positions: Tensor, begins: Tensor) -> Tensor:
        """Positions of the steps that began the documents of steps to be read, which are held then: Long [R, n].

        Args:
            positions: Long [R, n], in each row's text.
            begins: Bool [R, n], true where a step begins a document.
        """
        before = positions.new_zeros((len(positions), 1)) if self._start is None else self._start
        found: Tensor = torch.cat([before, positions * begins], dim=1).cummax(dim=1).values[:, 1:]
        self._start = found[:, -1:]
        self._positions = positions if self._positions is None else torch.cat([self._positions, positions], dim=1)
        return found

    def attentions_inside(self, starts: Tensor, mask: Tensor | None) -> list[Attention]:
        """As :meth:`attentions` for the steps of which :meth:`document_starts` told ``starts`` [R, n]."""
        assert self._positions is not None
        num_steps, total = starts.shape[1], self._positions.shape[1]
        steps = torch.ones((num_steps, total), dtype=torch.bool, device=starts.device).tril(total - num_steps)
        seen = steps & (self._positions[:, None] >= starts[..., None])
        if mask is not None:
            seen = seen & mask[:, None]
        return [partial(layer.attend, mask=seen) for layer in self.layers]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but ``rows``, Long."""
        if self._positions is not None and self._start is not None:
            self._positions, self._start = self._positions[rows], self._start[rows]
        for layer in self.layers:
            layer.keep(rows)


def seen_steps(num_steps: int, mask: Tensor | None) -> Tensor | None:
    """What each of the last ``num_steps`` steps sees, Bool [R, n, L + n]: steps of its text up to itself.

    Args:
        mask: Bool [R, L + n], true at steps of the row's text. Unset means that all are, and gives no mask at all.
    """
    if mask is None:
        return None
    steps = torch.ones((num_steps, mask.shape[1]), dtype=torch.bool, device=mask.device)
    return mask[:, None] & steps.tril(mask.shape[1] - num_steps)
