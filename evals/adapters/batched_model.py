"""A causal language model of transformers taken apart, so that it reads like our token model.

Shape letters: W windows, L tokens, R rows, N nodes (:mod:`calm_bench.lm.tree`), V vocabulary, d hidden size.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from calm_bench.lm.backbone import Backbone
from calm_bench.lm.cache import Cache
from calm_bench.lm.token import TokenModel
from calm_bench.lm.tree import Nodes, Text
from calm_bench.sampling.reader import Reader

LOGGER = logging.getLogger(__name__)

TRIAL_TOKENS = 6

SCALED_ROPE = ("linear", "llama3")
"""Ways to stretch a context that change the rotary frequencies and nothing else, whatever the length of a text."""


class BatchedModel(TokenModel):
    """A Llama: ``backbone`` and output projection of ``model``, whose parameters it shares, for ids below
    ``vocab_size``."""

    def __init__(self, model: Any, backbone: nn.Module, vocab_size: int) -> None:
        """
        Raises:
            TypeError: the model's output is no plain projection.
        """
        nn.Module.__init__(self)
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise TypeError(f"the output of {type(model).__name__} is not a linear projection without bias")
        self.chunk_size = 1
        self.backbone: Any = backbone
        self.lm_head = nn.Linear(head.in_features, vocab_size, bias=False, device="meta")
        # A view of the model's own rows.
        self.lm_head.weight = nn.Parameter(head.weight.detach()[:vocab_size], requires_grad=False)
        self.vocab_size = vocab_size


class MaskedModel(BatchedModel):
    """A model of any architecture, read by its own code. Ours is written for Llama, and faster."""

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.backbone.get_input_embeddings()(tokens)
        return embedded

    def hidden_states(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.backbone(inputs_embeds=self.embed(tokens)).last_hidden_state
        return hidden

    def read_text(self, tokens: Tensor) -> Text:
        return MaskedText(self, tokens)

    def new_cache(self, room: int | None = None) -> Cache:
        return MaskedCache(self.backbone.config)

    def read(self, tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None = None) -> Tensor:
        assert isinstance(cache, MaskedCache)
        output = self.backbone(
            inputs_embeds=self.embed(tokens),
            attention_mask=None if mask is None else mask.long(),
            position_ids=positions,
            past_key_values=cache.own,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


class MaskedCache(Cache):
    """What the model itself keeps of what it has read."""

    def __init__(self, config: Any) -> None:
        self.own = DynamicCache(config=config)

    def keep(self, rows: Tensor) -> None:
        self.own.batch_select_indices(rows)


class MaskedText(Text):
    """Windows read by a backbone of any architecture, whose cache also takes the nodes."""

    def __init__(self, model: MaskedModel, tokens: Tensor) -> None:
        self.backbone: Any = model.backbone
        self.cache = DynamicCache(config=self.backbone.config)
        output = self.backbone(inputs_embeds=model.embed(tokens), past_key_values=self.cache, use_cache=True)
        self.hidden = output.last_hidden_state

    def nodes(self) -> MaskedNodes:
        return MaskedNodes(self)


class MaskedNodes(Nodes):
    """Nodes that one 4-D mask keeps apart: each sees its text before its position, its ancestors and itself."""

    def __init__(self, text: MaskedText) -> None:
        self._text = text
        self._length = text.hidden.shape[1]
        self._depth = 0
        cache = text.cache
        cache.crop(self._length - cache.get_seq_length())  # transformers counts what to remove, as a negative number
        self._sees: Tensor | None = None
        """[W, nodes of the depth before, cached steps]"""
        self._slot = torch.empty(0, dtype=torch.long)
        """Long [N]: slot of each node of the depth before among its window's."""

    def descend(
        self, parent: Tensor, inputs: Tensor, window: Tensor, prefix: Tensor, begins: Tensor | None = None
    ) -> Tensor:
        text = self._text
        # Models of others read across documents.
        assert isinstance(text, MaskedText)
        assert begins is None
        num_windows, device = len(text.hidden), inputs.device
        count = torch.bincount(window, minlength=num_windows)
        slot = torch.arange(len(window), device=device) - (count.cumsum(0) - count)[window]
        most = int(count.max())

        # Windows with fewer nodes are filled up with nodes that see the first step of the text and nothing else.
        beyond = 0 if self._sees is None else self._sees.shape[-1] - self._length
        sees = torch.zeros((num_windows, most, self._length + beyond), dtype=torch.bool, device=device)
        sees[..., 0] = True
        if self._sees is None:
            sees[window, slot] = torch.arange(self._length, device=device) < prefix[:, None]
        else:
            sees[window, slot] = self._sees[window, self._slot[parent]]
        itself = torch.eye(most, dtype=torch.bool, device=device).expand(num_windows, -1, -1)
        self._sees, self._slot = torch.cat([sees, itself], dim=-1), slot

        embedded = inputs.new_zeros((num_windows, most, inputs.shape[-1]))
        embedded[window, slot] = inputs
        positions = torch.zeros((num_windows, most), dtype=torch.long, device=device)
        positions[window, slot] = prefix + self._depth
        # Additive rather than boolean, which every attention implementation reads alike.
        mask = torch.zeros(self._sees.shape, dtype=inputs.dtype, device=device)
        mask = mask.masked_fill(~self._sees, torch.finfo(inputs.dtype).min)[:, None]
        output = text.backbone(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=text.cache,
            use_cache=True,
        )
        self._depth += 1
        hidden: Tensor = output.last_hidden_state[window, slot]
        return hidden


def llama_backbone(model: Any) -> Backbone | None:
    """The parameters of ``model`` in a backbone of ours, or None if ours lacks something of its architecture."""
    if type(model) is not LlamaModel:
        return None
    config: Any = model.config
    rope = config.rope_parameters
    is_usual = (
        rope["rope_type"] in ("default", *SCALED_ROPE)
        and config.head_dim * config.num_attention_heads == config.hidden_size
        and not (config.attention_bias or config.mlp_bias)
        and config.hidden_act == "silu"
    )
    if not is_usual:
        return None
    with torch.device("meta"):
        backbone = Backbone(
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            rope["rope_theta"],
            config.rms_norm_eps,
        )
    backbone.load_state_dict(model.state_dict(), assign=True)
    if rope["rope_type"] in SCALED_ROPE:
        scale: Any = ROPE_INIT_FUNCTIONS[rope["rope_type"]]
        backbone.scaled = lambda frequencies: scale(config, frequencies.device)[0]
    return backbone.eval()


@torch.no_grad()
def batched_model(model: Any, vocab_size: int, max_positions: int | None) -> BatchedModel | None:
    """``model`` taken apart, or None if its parts do not give the logits of the whole.

    Tried are all ways in which samplers read: embedded inputs, texts of unequal length padded in front, and nodes
    that continue different prefixes of one cached text; each against texts that the model itself reads alone.
    """
    if max_positions is not None and max_positions < TRIAL_TOKENS:
        return None
    # Attention over a sliding window is a mask of the model's own, which a few tokens would not show.
    if any(getattr(layer, "is_sliding", False) for layer in DynamicCache(config=model.config).layers):
        return None
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(vocab_size, (TRIAL_TOKENS,), generator=generator).to(model.device)
    alone = torch.cat([model(input_ids=text[None, : end + 1]).logits[:, -1, :vocab_size] for end in range(len(text))])
    expected = torch.cat([alone, alone[[1, 3]], alone[[3, 5]]]).float()
    try:
        llama = llama_backbone(model.base_model)
        kind, backbone = (MaskedModel, model.base_model) if llama is None else (BatchedModel, llama)
        batched = kind(model, backbone, vocab_size)
        found = torch.cat([_whole(batched, text), _padded(batched, text), _nodes(batched, text)]).float()
    except Exception as error:  # architectures refuse such inputs in as many ways as there are
        LOGGER.info("%s is read one position at a time: %s", type(model).__name__, error)
        return None
    tolerance = 1e-4 if alone.dtype == torch.float32 else 5e-2
    if not (found - expected).abs().max() <= tolerance * expected.std():
        LOGGER.info("%s is read one position at a time: in batches it gives other logits", type(model).__name__)
        return None
    return batched


def _whole(batched: BatchedModel, text: Tensor) -> Tensor:
    logits: Tensor = batched.lm_head(batched.hidden_states(text[None])[0])
    return logits


def _padded(batched: BatchedModel, text: Tensor) -> Tensor:
    """After 2 and 4 tokens, of which the last is read in a step of its own."""
    reader = Reader(batched, [text[:1].tolist(), text[:3].tolist()])
    reader.read(text[[1, 3]][:, None])
    logits: Tensor = batched.lm_head(reader.hidden)
    return logits


def _nodes(batched: BatchedModel, text: Tensor) -> Tensor:
    """After 4 and 6 tokens: the second step from nodes that continue the first 2 and 4."""
    nodes = batched.read_text(text[None, :4]).nodes()
    window, prefix = torch.zeros_like(text[:2]), torch.tensor([2, 4], device=text.device)
    itself = torch.arange(2, device=text.device)
    nodes.descend(itself, batched.embed(text[prefix]), window, prefix)
    logits: Tensor = batched.lm_head(nodes.descend(itself, batched.embed(text[prefix + 1]), window, prefix))
    return logits
