"""Keys and values in tensors whose shapes never change, so that every step of a generation is the same operations.

A cache that grows gives each step a shape of its own, and a GPU computes a small step sooner than Python has launched
it. With one shape, a step can be recorded and played back (:mod:`calm_bench.sampling.recorded`). Attention reads the
places that are still empty too, masked: on a GPU that is cheap, on a CPU a cache that grows is faster
(:mod:`calm_bench.lm.cache`).

Shape letters: R rows, n steps read at first, M places for steps, H attention heads, G key-value heads, e size of a
head.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from calm_bench.lm.backbone import Attention, attend
from calm_bench.lm.cache import Cache, seen_steps


class FixedLayerCache:
    """Keys and values of one layer."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        """[R, G, M, e], rotated; zeros in empty places, since NaN would count even where nothing looks."""
        self.values: Tensor | None = None
        """[R, G, M, e]."""

    def begin(self, query: Tensor, key: Tensor, value: Tensor, room: int, mask: Tensor | None) -> Tensor:
        """Hold the first steps, ``key`` and ``value`` [R, n, G, e], and attend from ``query`` [R, n, H, e] to them.

        Args:
            room: M.
            mask: Bool [R, n, n]; unset means that every step sees all steps up to itself.
        """
        keys, values = key.transpose(1, 2), value.transpose(1, 2)
        size = (*keys.shape[:2], room, keys.shape[3])
        self.keys, self.values = keys.new_zeros(size), values.new_zeros(size)
        self.keys[:, :, : keys.shape[2]] = keys
        self.values[:, :, : keys.shape[2]] = values
        return attend(query, keys, values, mask, is_causal=mask is None and query.shape[1] > 1)

    def step(self, query: Tensor, key: Tensor, value: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        """Hold one step more, ``key`` and ``value`` [R, 1, G, e], and attend from ``query`` [R, 1, H, e].

        Args:
            place: Long [1], where the step belongs.
            mask: Bool [R, M], true at places that the row sees.
        """
        assert self.keys is not None
        assert self.values is not None
        self.keys.index_copy_(2, place, key.transpose(1, 2))
        self.values.index_copy_(2, place, value.transpose(1, 2))
        # Heads that share keys stand side by side as if they were positions: no kernel has to repeat the keys.
        grouped = query[:, 0].unflatten(1, (self.keys.shape[1], -1))  # [R, G, H / G, e]
        attended = functional.scaled_dot_product_attention(
            grouped, self.keys, self.values, attn_mask=mask[:, None, None]
        )
        return attended.flatten(1, 2)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but ``rows``, Long."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class FixedCache(Cache):
    """Keys and values of all layers: the first steps are read at once, all others one by one.

    A step waits for nothing, and its Python is the same every time: how many steps are held stands in a tensor.
    """

    def __init__(self, num_layers: int, room: int, device: torch.device) -> None:
        """
        Args:
            room: M, the most steps that are ever held; one more is an index error.
        """
        self._room = room
        self._layers = [FixedLayerCache() for _ in range(num_layers)]
        self._is_begun = False
        self._last = torch.full((1,), -1, device=device)
        """Long [1], the place of the last step that is held."""
        self._text = torch.ones((1, room), dtype=torch.bool, device=device)
        """[R or 1, M], false at padding."""

    def attentions(self, num_steps: int, mask: Tensor | None = None) -> list[Attention]:
        """Attentions of each layer: for the first ``num_steps`` steps, afterwards for a single one.

        Args:
            mask: Bool [R, n], true at steps of the row's text, of the first steps; all that follow are text.
        """
        if not self._is_begun:
            return self._beginning(num_steps, mask)
        assert num_steps == 1, "steps after the first ones are read one by one"
        self._last += 1
        seen = self._text & (torch.arange(self._room, device=self._last.device) <= self._last)
        return [partial(layer.step, place=self._last, mask=seen) for layer in self._layers]

    def _beginning(self, num_steps: int, mask: Tensor | None) -> list[Attention]:
        self._is_begun = True
        self._last += num_steps
        if mask is not None:
            self._text = self._text.repeat(len(mask), 1)
            self._text[:, :num_steps] = mask
        seen = seen_steps(num_steps, mask)
        return [partial(layer.begin, room=self._room, mask=seen) for layer in self._layers]

    def keep(self, rows: Tensor) -> None:
        for layer in self._layers:
            layer.keep(rows)
        if len(self._text) > 1:
            self._text = self._text[rows]
