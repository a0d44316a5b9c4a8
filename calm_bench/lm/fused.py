"""The backbone's steps on a CPU, by fewer and cheaper operations, with the bits of the plain ones.

A step of a few rows is some three hundred operations of little arithmetic. Here the products for queries, keys and
values are one, both are rotated together, and angles are looked up.

Before the matrix library multiplies by a weight, it copies it into an order of its own, which with few rows takes as
long as the product; one that lies column by column is copied faster. Where many steps follow, weights are laid out so:
a second copy of the layers' weights, held while a generation runs.

Shape letters: [...] any leading dimensions, d hidden size, H attention heads, G key-value heads, e size of a head.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from calm_bench.gated import gated
from calm_bench.lm.backbone import Attention, Backbone, Layer, rotated

LEAST_WIDTH, WIDTH_OF_A_VECTOR = 16, 4
"""Products are joined if each gives so many numbers or more, a multiple of the latter: others change their bits."""
FEWEST_ROWS = 4
"""Fewer are multiplied by other kernels, whose bits depend on how the weight lies. Several threads share rows out among
them, so that one may have fewer."""
FEWEST_STEPS = 8
"""Laying the weights out takes about as long as five steps save."""
MAX_BYTES = 1 << 30
"""Of the weights that are laid out anew: what a larger model's steps would gain is not worth the memory."""


def fused_backbone(backbone: nn.Module, num_rows: int, num_steps: int) -> FusedBackbone | None:
    """``backbone`` for ``num_steps`` steps of ``num_rows`` rows, without gradients; None where the results would have
    other bits."""
    if not isinstance(backbone, Backbone):
        return None
    layers = [layer for layer in backbone.layers if type(layer) is Layer]
    weights = [weight for layer in layers for weight in layer.parameters() if weight.dim() == 2]
    if len(layers) < len(backbone.layers) or not weights or any(not _is_plain(weight) for weight in weights):
        return None
    projections = (layer.self_attn for layer in layers)
    joined = [len(part.weight) for own in projections for part in (own.q_proj, own.k_proj, own.v_proj)]
    if min(joined) < LEAST_WIDTH or any(width % WIDTH_OF_A_VECTOR for width in joined):
        return None
    pays = num_steps >= FEWEST_STEPS and sum(weight.nbytes for weight in weights) <= MAX_BYTES
    keeps_bits = num_rows >= FEWEST_ROWS and min(map(len, weights)) >= LEAST_WIDTH and torch.get_num_threads() == 1
    return FusedBackbone(backbone, layers, by_columns=pays and keeps_bits)


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


class FusedBackbone:
    """A backbone's forward pass by the weights that it has now."""

    def __init__(self, backbone: Backbone, layers: Iterable[Layer], by_columns: bool) -> None:
        self.layers = [FusedLayer(layer, by_columns) for layer in layers]
        self._backbone, self._by_columns = backbone, by_columns
        self._cosine = self._sine = torch.empty(0)

    def __call__(self, inputs: Tensor, positions: Tensor, attentions: Iterable[Attention]) -> Tensor:
        """As :meth:`Backbone.forward`."""
        is_few = inputs.shape[:-1].numel() < FEWEST_ROWS
        if (self._by_columns and is_few) or inputs.dtype != torch.float32:
            plain: Tensor = self._backbone(inputs, positions, attentions)
            return plain
        size = self._backbone.embed_tokens.embedding_dim
        x, carried = inputs[..., :size], inputs[..., size:]
        cosine, sine = self._rotary(positions)
        for layer, attention in zip(self.layers, attentions, strict=True):
            x = layer(x, cosine, sine, attention)
        hidden: Tensor = self._backbone.norm(x)
        return torch.cat([hidden, carried], dim=-1) if carried.shape[-1] else hidden

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Backbone.rotary`, from tables."""
        needed = int(positions.max()) + 1
        if needed > len(self._cosine):
            self._cosine, self._sine = self._backbone.rotary(torch.arange(2 * needed), torch.float32)
        return self._cosine[positions], self._sine[positions]


class FusedLayer:
    """A :class:`Layer`; its weights are used as they lie, or laid out column by column."""

    def __init__(self, layer: Layer, by_columns: bool) -> None:
        attend, mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._head_size = attend.head_size
        self._num_heads = len(attend.q_proj.weight) // attend.head_size
        self._num_rotated = self._num_heads + len(attend.k_proj.weight) // attend.head_size
        with torch.no_grad():
            qkv = torch.cat([attend.q_proj.weight, attend.k_proj.weight, attend.v_proj.weight])
        # Gate and up are not one: SiLU rounds rows that do not lie together otherwise.
        weights = qkv, attend.o_proj.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
        plain = [weight.detach() for weight in weights]
        self.qkv, self.out, self.gate, self.up, self.down = map(laid_out, plain) if by_columns else plain

    def __call__(self, x: Tensor, cosine: Tensor, sine: Tensor, attention: Attention) -> Tensor:
        """[..., d] -> [..., d]."""
        linear = functional.linear
        heads = linear(self._norms[0](x), self.qkv).unflatten(-1, (-1, self._head_size))  # [..., H + 2 G, e]
        turned = rotated(heads[..., : self._num_rotated, :], cosine, sine)
        query, key = turned[..., : self._num_heads, :], turned[..., self._num_heads :, :]
        attended = attention(query, key, heads[..., self._num_rotated :, :])
        x = x + linear(attended.flatten(-2), self.out)
        normed = self._norms[1](x)
        return x + linear(gated(linear(normed, self.gate), linear(normed, self.up)), self.down)


def laid_out(weight: Tensor) -> Tensor:
    """The same matrix, column by column in memory."""
    # torch shuffles channels by transposing in registers, which takes half the time of a transposed copy.
    numbers = weight.reshape(1, -1, 1, 1).to(memory_format=torch.channels_last)
    return functional.channel_shuffle(numbers, len(weight)).view(weight.shape[1], len(weight)).T
