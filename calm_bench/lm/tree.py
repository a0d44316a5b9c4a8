"""The backbone's passes over many short continuations of one text: tree attention.

A text has been read, teacher-forced, and its keys and values are kept. A *node* is a distinct beginning of a
continuation: it stands at a position of the text and has one parent, the same beginning without its last chunk. It
attends to its text before that position and to its own ancestors. The text's keys and values are shared by all nodes
and never copied.

Shape letters: W windows, N nodes, L steps of the text, t ancestors of a node (itself included), H attention heads, G
key-value heads, r = H / G, e size of a head, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from calm_bench.lm.backbone import Backbone
from calm_bench.lm.cache import Cache

MAX_SCORES = 1 << 23
"""Attention scores held at once on a CPU (32 MB in fp32); on a GPU, 64 times as many, or it would wait for launches."""
ON_GPU = 64


class Text:
    """Windows that were read once, and their keys and values at every step."""

    def __init__(self, backbone: Backbone, inputs: Tensor, starts: Tensor | None = None) -> None:
        """Read ``inputs`` [W, L, d].

        Args:
            starts: Long [W, L], the step that begins each step's document, where attention stays inside documents.
        """
        self.backbone = backbone
        self.starts = starts
        cache = Cache(len(backbone.layers))
        if starts is None:
            hidden = backbone(inputs, attentions=cache.attentions(inputs.shape[1]))
        else:
            positions = torch.arange(inputs.shape[1], device=inputs.device).expand_as(starts)
            inside = partial(cache.attentions_inside, cache.document_starts(positions, positions == starts), None)
            hidden = backbone(inputs, positions - starts, inside())
        self.hidden: Tensor = hidden
        """[W, L, d]."""
        self.keys: list[Tensor] = [layer.keys for layer in cache.layers]
        """Keys of each layer: [W, G, L, e]."""
        self.values: list[Tensor] = [layer.values for layer in cache.layers]

    def nodes(self) -> Nodes:
        """The root of a new tree of continuations; the tree before it is no longer to be used."""
        return Nodes(self)


@dataclass(frozen=True)
class _Documents:
    """Where the document of each of N nodes begins."""

    text: Tensor
    """Long [N], the first step of the text that belongs to it; where none does, the node's prefix."""
    ancestor: Tensor
    """Long [N], the first of the node's ancestors that belongs to it."""

    def of(self, nodes: Tensor) -> _Documents:
        return _Documents(self.text[nodes], self.ancestor[nodes])

    def gone_on(self, begins: Tensor, prefix: Tensor, depth: int) -> _Documents:
        """Those of nodes with one more ancestor, number ``depth``, which begins a document where ``begins`` says so."""
        return _Documents(torch.where(begins, prefix, self.text), self.ancestor.masked_fill(begins, depth))

    def positions(self, prefix: Tensor, depth: int) -> Tensor:
        """Of ancestor ``depth`` in its document: Long [N]."""
        return prefix - self.text + depth - self.ancestor


@dataclass(frozen=True)
class Side:
    """Consecutive nodes whose attention is computed together, a window's side by side, so that one product serves
    them all: node i is row ``slot[i]`` of window ``own[i]`` of those that take part."""

    nodes: slice
    windows: slice
    longest: int
    """Steps of the text that some node sees."""
    most: int
    """Nodes of the window with most."""
    own: Tensor
    slot: Tensor
    unseen: Tensor
    """Bool [W, most, longest], true where a node does not look."""
    unseen_ancestors: Tensor | None
    """Bool [W, most, t], likewise; unset where every node looks at all of its ancestors."""

    def spread(self, values: Tensor) -> Tensor:
        """[n, G, r, x] -> [W, G, most * r, x], zeros where a window has fewer nodes."""
        padded = values.new_zeros((len(self.unseen), self.most, *values.shape[1:]))
        padded[self.own, self.slot] = values
        return padded.transpose(1, 2).flatten(2, 3)

    def gathered(self, rows: Tensor) -> Tensor:
        """The way back."""
        back: Tensor = rows.unflatten(2, (self.most, -1)).transpose(1, 2)[self.own, self.slot]
        return back


class Nodes:
    """The nodes of one depth, in the order of their windows, with their ancestors' keys and values."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._keys: list[Tensor | None] = [None for _ in text.keys]
        self._values: list[Tensor | None] = [None for _ in text.keys]
        self._depth = 0
        self._documents: _Documents | None = None

    def descend(
        self, parent: Tensor, inputs: Tensor, window: Tensor, prefix: Tensor, begins: Tensor | None = None
    ) -> Tensor:
        """Go on by one chunk: the children take the place of their parents.

        Args:
            parent: Long [N], each child's parent among the nodes before; ignored at the first step, where the parents
                are positions of the text.
            inputs: [N, d], the embedded chunks.
            window: Long [N], ascending.
            prefix: Long [N], steps of the text before the node's position, at least 1.
            begins: Bool [N], where a chunk begins a document; given where attention stays inside documents.

        Returns:
            Hidden states [N, d] that have read the chunks.
        """
        backbone = self._text.backbone
        positions = prefix + self._depth
        if begins is not None:
            before = self._documents
            own = self._at_the_text(window, prefix) if before is None else before.of(parent)
            self._documents = own.gone_on(begins, prefix, self._depth)
            positions = self._documents.positions(prefix, self._depth)
        sides = _sides(window, prefix, backbone.num_heads, self._depth + 1, self._documents)
        attentions = [partial(self._attend, layer, parent, sides) for layer in range(len(self._keys))]
        hidden: Tensor = backbone(inputs, positions, attentions)
        self._depth += 1
        return hidden

    def _at_the_text(self, window: Tensor, prefix: Tensor) -> _Documents:
        """The documents that the text is in where it is continued."""
        assert self._text.starts is not None
        return _Documents(self._text.starts[window, prefix - 1], torch.zeros_like(prefix))

    def _attend(
        self, layer: int, parent: Tensor, sides: list[Side], query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attention of all nodes in one layer: [N, H, e] and [N, G, e] -> [N, H, e]."""
        keys = self._keys[layer] = _appended(self._keys[layer], parent, key)
        values = self._values[layer] = _appended(self._values[layer], parent, value)
        parts = [
            _attended(
                side,
                query[side.nodes],
                keys[side.nodes],
                values[side.nodes],
                self._text.keys[layer][side.windows, :, : side.longest],
                self._text.values[layer][side.windows, :, : side.longest],
            )
            for side in sides
        ]
        return torch.cat(parts)


def _attended(
    side: Side, query: Tensor, keys: Tensor, values: Tensor, text_keys: Tensor, text_values: Tensor
) -> Tensor:
    """[n, H, e] with ancestors [n, t, G, e] and texts [W, G, longest, e] -> [n, H, e]."""
    groups, size = text_keys.shape[1], text_keys.shape[3]
    grouped = query.unflatten(1, (groups, -1)) * size**-0.5  # [n, G, r, e]
    to_text = side.spread(grouped) @ text_keys.transpose(2, 3)  # [W, G, most * r, longest]
    to_text.unflatten(2, (side.most, -1)).masked_fill_(side.unseen[:, None, :, None], -torch.inf)
    to_ancestors = side.spread(torch.einsum("ngre,ntge->ngrt", grouped, keys))
    if side.unseen_ancestors is not None:
        to_ancestors.unflatten(2, (side.most, -1)).masked_fill_(side.unseen_ancestors[:, None, :, None], -torch.inf)
    weights = torch.cat([to_text, to_ancestors], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    from_text = side.gathered(weights[..., : side.longest] @ text_values)
    from_ancestors = torch.einsum("ngrt,ntge->ngre", side.gathered(weights[..., side.longest :]), values)
    attended: Tensor = (from_text + from_ancestors).flatten(1, 2)
    return attended


def _appended(before: Tensor | None, parent: Tensor, new: Tensor) -> Tensor:
    """The parents' [N', t, ...] taken over and one more [N, ...] put behind: [N, t + 1, ...]."""
    own = new.unsqueeze(1)
    return own if before is None else torch.cat([before[parent], own], dim=1)


def _sides(
    window: Tensor, prefix: Tensor, num_heads: int, depth: int, documents: _Documents | None = None
) -> list[Side]:
    """Nodes in windows ``window`` that see ``prefix`` steps of them, both Long [N], and ``depth`` of their own; of both
    those that are of their document, where ``documents`` are told.

    The same for all layers, and worked out on the CPU from one copy: a GPU is waited for once, not at every number.
    """
    device = window.device
    windows, prefixes = torch.stack([window, prefix]).cpu()
    most_scores = MAX_SCORES * (1 if device.type == "cpu" else ON_GPU)
    sides = []
    for nodes in _slices(windows, max(1, most_scores // (num_heads * (int(prefixes.max()) + depth)))):
        first, last, longest = int(windows[nodes][0]), int(windows[nodes][-1]), int(prefixes[nodes].max())
        own = windows[nodes] - first
        count = torch.bincount(own)
        slot = torch.arange(len(own)) - (count.cumsum(0) - count)[own]
        unseen = torch.ones((len(count), int(count.max()), longest), dtype=torch.bool, device=device)
        own, slot = own.to(device, non_blocking=True), slot.to(device, non_blocking=True)
        steps = torch.arange(longest, device=device)
        unseen[own, slot] = steps >= prefix[nodes, None]
        ancestors = None
        if documents is not None:
            unseen[own, slot] |= steps < documents.text[nodes, None]
            ancestors = torch.zeros((*unseen.shape[:2], depth), dtype=torch.bool, device=device)
            ancestors[own, slot] = torch.arange(depth, device=device) < documents.ancestor[nodes, None]
        windows_of = slice(first, last + 1)
        sides.append(Side(nodes, windows_of, longest, unseen.shape[1], own, slot, unseen, ancestors))
    return sides


def _slices(window: Tensor, most_rows: int) -> list[slice]:
    """Consecutive nodes whose attention is computed together: at most ``most_rows`` of them, once each window that
    takes part has been filled up to the one with most."""
    slices, begin, end, num_windows, most = [], 0, 0, 0, 0
    for count in torch.bincount(window).tolist():
        if end > begin and (num_windows + 1) * max(most, count) > most_rows:
            slices += [slice(start, min(start + most_rows, end)) for start in range(begin, end, most_rows)]
            begin, num_windows, most = end, 0, 0
        end += count
        num_windows, most = num_windows + 1, max(most, count)
    return slices + [slice(start, min(start + most_rows, end)) for start in range(begin, end, most_rows)]
