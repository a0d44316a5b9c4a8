"""The backbone: RMSNorm, rotary positions, grouped-query attention and SwiGLU, as Llama has them (arXiv 2307.09288).

Written once for training, for reading windows and their continuations, and for cached steps. These differ in what a
position looks at, so every layer is handed its *attention*: a function of the layer's queries, keys and values.

Parameters carry the names that ``transformers.LlamaModel`` gives them, and start as its own do under the same seed.

Shape letters: [...] any leading dimensions, d hidden size, H attention heads, G key-value heads, e size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from calm_bench import norms
from calm_bench.gated import gated
from calm_bench.regions import computed_again_alike, region

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [..., H, e], keys and values [..., G, e] of one layer's inputs, all rotated -> [..., H, e]."""


class RMSNorm(norms.RMSNorm):
    """In fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]; of bf16, rounded to it before the fp32 weight, as Llama does."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        return self.weight * functional.rms_norm(x.float(), self.normalized_shape, eps=self.eps).to(x.dtype)


class Attend(nn.Module):
    """The projections around an attention."""

    def __init__(self, hidden_size: int, num_heads: int, key_value_heads: int) -> None:
        super().__init__()
        self.head_size = hidden_size // num_heads
        self.q_proj = nn.Linear(hidden_size, num_heads * self.head_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, key_value_heads * self.head_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, key_value_heads * self.head_size, bias=False)
        self.o_proj = nn.Linear(num_heads * self.head_size, hidden_size, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attention: Attention) -> Tensor:
        """[..., d] -> [..., d]; for the tables see :meth:`Rotary.forward`."""
        heads = (*x.shape[:-1], -1, self.head_size)
        query = rotated(self.q_proj(x).view(heads), cosine, sine)
        key = rotated(self.k_proj(x).view(heads), cosine, sine)
        value = self.v_proj(x).view(heads)
        out: Tensor = self.o_proj(attention(query, key, value).flatten(-2))
        return out


class SwiGLU(nn.Module):
    """Down(SiLU(Gate(x)) * Up(x)) (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        out: Tensor = self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))
        return out


class Layer(nn.Module):
    """x <- x + Attend(RMSNorm(x)); x <- x + SwiGLU(RMSNorm(x))."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, num_heads: int, key_value_heads: int, eps: float
    ) -> None:
        super().__init__()
        self.self_attn = Attend(hidden_size, num_heads, key_value_heads)
        self.mlp = SwiGLU(hidden_size, intermediate_size)
        self.input_layernorm = RMSNorm(hidden_size, eps)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps)

    @region
    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attention: Attention) -> Tensor:
        """[..., d] -> [..., d]."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, attention)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Backbone(nn.Module):
    """A causal decoder over embedded inputs; ``embed_tokens`` is for the models around it to call."""

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        key_value_heads: int,
        rope_theta: float,
        rms_norm_eps: float,
    ) -> None:
        """
        Args:
            rope_theta: base of the rotary frequencies.
            rms_norm_eps: added to the mean square in every RMSNorm.
        """
        super().__init__()
        self.num_heads, self.head_size, self.rope_theta = num_heads, hidden_size // num_heads, rope_theta
        self.scaled: Callable[[Tensor], Tensor] = lambda frequencies: frequencies
        """Rotary frequencies [e / 2] to those that are used, for models whose context was stretched."""
        self.recomputes = False
        """Whether a backward pass finds the inputs of the layers only and computes each layer again."""
        self.initializer_range = hidden_size**-0.5
        """Standard deviation of the initial weights; at the reference's fixed 0.02 narrow models learn late."""
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        sizes = (hidden_size, intermediate_size, num_heads, key_value_heads, rms_norm_eps)
        self.layers = nn.ModuleList(Layer(*sizes) for _ in range(num_layers))
        self.norm = RMSNorm(hidden_size, rms_norm_eps)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.initializer_range)

    def forward(
        self, inputs: Tensor, positions: Tensor | None = None, attentions: Iterable[Attention] | None = None
    ) -> Tensor:
        """Hidden states [..., d] of embedded ``inputs`` [..., d].

        Whatever stands behind the first d numbers of an input goes past the layers and stands behind the hidden state,
        for a model whose predictions need to know what the last input was: [..., d + c] -> [..., d + c].

        Args:
            positions: Long, [...] or broadcast to it; unset means that the second to last dimension counts from 0.
            attentions: of each layer; unset means :func:`causal` attention.
        """
        if positions is None:
            positions = torch.arange(inputs.shape[-2], device=inputs.device)
        size = self.embed_tokens.embedding_dim
        x, carried = inputs[..., :size], inputs[..., size:]
        cosine, sine = self.rotary(positions, x.dtype)
        for layer, attention in zip(self.layers, repeat(causal) if attentions is None else attentions, strict=False):
            if self.recomputes and torch.is_grad_enabled():
                # No layer draws: there is no state of a generator to bring back.
                settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
                x = checkpoint(layer, x, cosine, sine, attention, context_fn=computed_again_alike, **settings)
            else:
                x = layer(x, cosine, sine, attention)
        hidden: Tensor = self.norm(x)
        return torch.cat([hidden, carried], dim=-1) if carried.shape[-1] else hidden

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """:func:`rotary_angles` of this backbone: positions [...] -> two [..., 1, e]."""
        return rotary_angles(positions, self.head_size, self.rope_theta, dtype, self.scaled)


def rotary_angles(
    positions: Tensor,
    head_size: int,
    theta: float,
    dtype: torch.dtype,
    scaled: Callable[[Tensor], Tensor] = lambda frequencies: frequencies,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary angles (arXiv 2104.09864): positions [...] -> two [..., 1, e], for all heads.

    Sines of the first half are negative, as :func:`rotated` needs them.

    Args:
        theta: base of the frequencies.
        scaled: rotary frequencies [e / 2] to those that are used.
    """
    even = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device)
    # Not a table that moves and is cast with the module: its bits are the same wherever the module has been.
    frequencies = scaled(1.0 / theta ** (even / head_size))
    angles = positions[..., None, None].float() * frequencies
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotated(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Every pair (i, i + e/2) of ``values`` [..., heads, e] turned by its position's angle."""
    first, second = values.chunk(2, dim=-1)
    return (values * cosine).add_(torch.cat([second, first], dim=-1) * sine)


def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of a whole text to itself, [B, n, H, e] and [B, n, G, e] -> [B, n, H, e]: no position looks ahead.

    It builds no mask, so that flash kernels serve it.
    """
    return attend(query, key.transpose(1, 2), value.transpose(1, 2), is_causal=True)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """softmax(q k / sqrt(e)) v, where heads in equal numbers share keys and values.

    Args:
        query: [B, n, H, e].
        keys: [B, G, L, e].
        values: [B, G, L, e].
        mask: Bool [B, n, L], true where a position may look; one that may look nowhere gets zeros.

    Returns:
        [B, n, H, e].
    """
    attended = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys,
        values,
        attn_mask=None if mask is None else mask.unsqueeze(1),
        is_causal=is_causal,
        enable_gqa=query.shape[2] != keys.shape[1],
    )
    return attended.transpose(1, 2)
