"""The backbone's passes over many short continuations of one text: tree attention.

A text has been read, teacher-forced, and its keys and values are kept. A *node* is a distinct beginning of a
continuation: it stands at a position of the text and has one parent, the same beginning without its last chunk. It
attends to its text before that position and to its own ancestors. The text's keys and values are shared by all nodes
and never copied.

Shape letters: W windows, N nodes, L steps of the text, t ancestors of a node (itself included), H attention heads, G
key-value heads, r = H / G, e size of a head, d hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb

MAX_SCORES = 1 << 23
"""Attention scores held at once (32 MB in fp32)."""


class Text:
    """Windows that were read once, and their keys and values at every step."""

    def __init__(self, backbone: LlamaModel, inputs: Tensor) -> None:
        """Read ``inputs`` [W, L, d]."""
        self.backbone = backbone
        cache = DynamicCache(config=backbone.config)
        output = backbone(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        self.hidden: Tensor = output.last_hidden_state
        """[W, L, d]."""
        layers: list[Any] = cache.layers
        self.keys: list[Tensor] = [layer.keys for layer in layers]
        """Of each layer: [W, G, L, e]."""
        self.values: list[Tensor] = [layer.values for layer in layers]

    def nodes(self) -> Nodes:
        """The root of a new tree of continuations; the tree before it is no longer to be used."""
        return Nodes(self)


class Nodes:
    """The nodes of one depth, in the order of their windows, with their ancestors' keys and values."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._keys: list[Tensor | None] = [None for _ in text.keys]
        self._values: list[Tensor | None] = [None for _ in text.keys]
        self._depth = 0

    def descend(self, parent: Tensor, inputs: Tensor, window: Tensor, prefix: Tensor) -> Tensor:
        """Go on by one chunk: the children take the place of their parents.

        Args:
            parent: Long [N], each child's parent among the nodes before; ignored at the first step, where the parents
                are positions of the text.
            inputs: [N, d], the embedded chunks.
            window: Long [N], ascending.
            prefix: Long [N], steps of the text before the node's position, at least 1.

        Returns:
            Hidden states [N, d] that have read the chunks.
        """
        backbone: Any = self._text.backbone
        scores = backbone.config.num_attention_heads * (int(prefix.max()) + self._depth + 1)
        slices = _slices(window, max(1, MAX_SCORES // scores))
        rotary = backbone.rotary_emb(inputs[None], (prefix + self._depth)[None])
        cosine, sine = (table[0] for table in rotary)
        x = inputs
        for index, layer in enumerate(backbone.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(x)
            query, key, value = (
                project(normed).unflatten(-1, (-1, attention.head_dim))
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cosine, sine)
            keys = self._keys[index] = _appended(self._keys[index], parent, key)
            values = self._values[index] = _appended(self._values[index], parent, value)
            attended = torch.cat(
                [
                    self._attend(index, query[rows], keys[rows], values[rows], window[rows], prefix[rows])
                    for rows in slices
                ]
            )
            x = x + attention.o_proj(attended)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self._depth += 1
        hidden: Tensor = backbone.norm(x)
        return hidden

    def _attend(
        self, layer: int, query: Tensor, keys: Tensor, values: Tensor, window: Tensor, prefix: Tensor
    ) -> Tensor:
        """Attention of some nodes: [n, H, e] with ancestors [n, t, G, e] -> [n, H e]."""
        first, last, longest = int(window[0]), int(window[-1]), int(prefix.max())
        text_keys = self._text.keys[layer][first : last + 1, :, :longest]
        text_values = self._text.values[layer][first : last + 1, :, :longest]
        num_windows, groups, _, size = text_keys.shape
        # A window's nodes side by side, so that one product serves them all: row `place` of window `own`.
        own = window - first
        count = torch.bincount(own, minlength=num_windows)
        place = torch.arange(len(own), device=own.device) - (count.cumsum(0) - count)[own]
        most = int(count.max())

        def side_by_side(values: Tensor) -> Tensor:
            """[n, G, r, x] -> [W, G, most * r, x], zeros where a window has fewer nodes."""
            padded = values.new_zeros((num_windows, most, *values.shape[1:]))
            padded[own, place] = values
            return padded.transpose(1, 2).flatten(2, 3)

        def one_by_one(rows: Tensor) -> Tensor:
            """The way back."""
            back: Tensor = rows.unflatten(2, (most, -1)).transpose(1, 2)[own, place]
            return back

        grouped = query.unflatten(1, (groups, -1)) * size**-0.5  # [n, G, r, e]
        to_text = side_by_side(grouped) @ text_keys.transpose(2, 3)  # [W, G, most * r, longest]
        unseen = torch.ones((num_windows, most, longest), dtype=torch.bool, device=query.device)
        unseen[own, place] = torch.arange(longest, device=query.device) >= prefix[:, None]
        to_text.unflatten(2, (most, -1)).masked_fill_(unseen[:, None, :, None], -torch.inf)
        to_ancestors = side_by_side(torch.einsum("ngre,ntge->ngrt", grouped, keys))
        weights = torch.cat([to_text, to_ancestors], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        from_text = one_by_one(weights[..., :longest] @ text_values)
        from_ancestors = torch.einsum("ngrt,ntge->ngre", one_by_one(weights[..., longest:]), values)
        attended: Tensor = (from_text + from_ancestors).flatten(1)
        return attended


def _appended(before: Tensor | None, parent: Tensor, new: Tensor) -> Tensor:
    """The parents' [N', t, ...] taken over and one more [N, ...] put behind: [N, t + 1, ...]."""
    own = new.unsqueeze(1)
    return own if before is None else torch.cat([before[parent], own], dim=1)


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
