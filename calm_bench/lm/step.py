"""One step of the backbone for every row of a batch, with little between the matrix products.

At batch 1 a step of a small model is mostly what happens around its products: masks, checks and norms of many small
operations. This is the backbone's own computation without them, for the case that generation repeats.

Shape letters: R rows, L steps read so far, d hidden size, H attention heads, G key-value heads, e size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel


def step(backbone: LlamaModel, inputs: Tensor, positions: Tensor, cache: DynamicCache, mask: Tensor | None) -> Tensor:
    """Read one more input per row, which ``cache`` then holds too.

    Args:
        inputs: [R, d].
        positions: Long [R, 1], the rotary position of each row's input.
        mask: [R, L + 1], true where a row may look, itself included; None for everywhere.

    Returns:
        Hidden states [R, d].
    """
    x = inputs
    model: Any = backbone
    eps = model.config.rms_norm_eps
    heads, groups = model.config.num_attention_heads, model.config.num_key_value_heads
    cosine, sine = model.rotary_emb(inputs, positions)  # [R, 1, e]
    first, second = cosine.shape[-1] // 2, cosine.shape[-1]
    seen = None if mask is None else mask[:, None, None].bool()

    def rotated(values: Tensor) -> Tensor:
        turned = torch.cat([-values[..., first:second], values[..., :first]], dim=-1)
        return torch.addcmul(values * cosine, turned, sine)

    def normed(values: Tensor, norm: Any) -> Tensor:
        return functional.rms_norm(values, values.shape[-1:], norm.weight, eps)

    for index, layer in enumerate(model.layers):
        attention = layer.self_attn
        h = normed(x, layer.input_layernorm)
        query = rotated(attention.q_proj(h).view(len(h), heads, -1))
        key = rotated(attention.k_proj(h).view(len(h), groups, -1))
        value = attention.v_proj(h).view(len(h), groups, -1)
        keys, values = cache.update(key.unsqueeze(2), value.unsqueeze(2), index)
        attended = functional.scaled_dot_product_attention(
            query.unsqueeze(2), keys, values, attn_mask=seen, enable_gqa=heads != groups
        )
        x = x + attention.o_proj(attended.reshape(len(h), -1))
        h = normed(x, layer.post_attention_layernorm)
        x = x + layer.mlp.down_proj(functional.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h))
    return normed(x, model.norm)
