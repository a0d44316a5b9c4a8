"""Keys and values of texts that are read bit by bit.

Shape letters: R rows, L steps read so far, n steps read now, H attention heads, G key-value heads, e size of a head.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from calm_bench.lm.backbone import Attention, attend


class LayerCache:
    """Keys and values of one layer. Room doubles when it is used up, so that most steps copy nothing but themselves."""

    def __init__(self) -> None:
        self._held: Tensor | None = None
        """[2, R, G, room, e]: keys, values."""
        self.length = 0

    @property
    def keys(self) -> Tensor:
        """[R, G, L, e], rotated."""
        assert self._held is not None
        return self._held[0, :, :, : self.length]

    @property
    def values(self) -> Tensor:
        """[R, G, L, e]."""
        assert self._held is not None
        return self._held[1, :, :, : self.length]

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
        if self._held is not None:
            self._held = self._held[:, rows]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Hold ``keys`` and ``values`` [R, G, n, e] too."""
        length = self.length + keys.shape[2]
        held = self._held
        if held is None or length > held.shape[3]:
            room = length if held is None else max(length, 2 * held.shape[3])
            self._held = keys.new_empty((2, *keys.shape[:2], room, keys.shape[3]))
            if held is not None:
                self._held[:, :, :, : self.length] = held[:, :, :, : self.length]
            held = self._held
        held[0, :, :, self.length : length] = keys
        held[1, :, :, self.length : length] = values
        self.length = length


class Cache:
    """Keys and values of all layers."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]

    def attentions(self, num_steps: int, mask: Tensor | None = None) -> list[Attention]:
        """Attentions of each layer, for ``num_steps`` steps that are to be read and held.

        Args:
            mask: Bool [R, L + n], true at steps of the row's text; others are padding, which nobody sees. Unset means
                that there is none.
        """
        seen = seen_steps(num_steps, mask)
        return [partial(layer.attend, mask=seen) for layer in self.layers]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but ``rows``, Long."""
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
