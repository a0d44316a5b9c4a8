"""A chunk backbone with a small autoregressive decoder over the tokens of a chunk (MegaByte, arXiv 2305.07185).

The backbone takes one step per chunk, as CALM's does, but what it predicts stays tokens: the decoder reads the hidden
state and the tokens of the chunk that are already there. It is the control that CALM is to be compared with: the chunk
without the vector, with an exact likelihood and without an autoencoder.

Shape legend: R rows (hidden states), K tokens of a chunk, d hidden size, w width of the decoder.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.families.patch import decoder_sizes
from calm_bench.lm.backbone import Layer, RMSNorm, attend, causal, rotary_angles
from calm_bench.lm.chunked import ChunkInput, start, unit_embeddings
from calm_bench.lm.exact import ChunkState, ExactModel


class RecurrentDecoder(nn.Module):
    """GRU cells that begin with the hidden state, and an MLP of their output: w -> i, SiLU.

    One cell of the hidden state's width begins with the hidden state as it is, others with a projection of it.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        sizes, d = decoder_sizes(config), config.hidden_size
        self.first = nn.Parameter(torch.zeros(d))
        """Stands for the token before the chunk's first."""
        self.begin_with = nn.Linear(d, sizes.layers * sizes.width) if sizes.projects_hidden else nn.Identity()
        inputs = [d, *[sizes.width] * (sizes.layers - 1)]
        self.cells = nn.ModuleList(nn.GRUCell(size, sizes.width) for size in inputs)
        self.mlp = nn.Linear(sizes.width, sizes.intermediate)

    def begin(self, hidden: Tensor) -> ChunkState:
        """Each cell's state after the first input: [R, d] -> tensors [R, w], one a layer."""
        states = self.begin_with(hidden).chunk(len(self.cells), dim=-1)
        return self.advance(states, self.first.expand(len(hidden), -1))

    def advance(self, state: ChunkState, embedded: Tensor) -> ChunkState:
        """Each cell's state after one more token: [R, d]."""
        found: list[Tensor] = []
        for cell, before in zip(self.cells, state, strict=True):
            found.append(cell(found[-1] if found else embedded, before))
        return tuple(found)

    def feature(self, state: ChunkState) -> Tensor:
        """What the softmax reads: -> [R, i]."""
        return functional.silu(self.mlp(state[-1]))

    def features(self, hidden: Tensor, embedded: Tensor) -> Tensor:
        """All of a chunk's at once: [R, d] and its first K - 1 tokens [R, K - 1, d] -> [R, K, i]."""
        state = self.begin(hidden)
        outputs = [state[-1]]
        for token in embedded.unbind(1):
            state = self.advance(state, token)
            outputs.append(state[-1])
        return functional.silu(self.mlp(torch.stack(outputs, dim=1)))


class TransformerDecoder(nn.Module):
    """Causal layers over a chunk's tokens; each place of the chunk has a projection of the hidden state added."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        sizes, d = decoder_sizes(config), config.hidden_size
        self.width, self.num_heads = sizes.width, config.num_attention_heads
        self.first = nn.Parameter(torch.zeros(d))
        """Stands for the token before the chunk's first."""
        self.token = nn.Linear(d, sizes.width)
        self.place = nn.Linear(d, config.chunk_size * sizes.width)
        self.layers = nn.ModuleList(
            Layer(sizes.width, sizes.intermediate, self.num_heads, self.num_heads, config.rms_norm_eps)
            for _ in range(sizes.layers)
        )
        self.norm = RMSNorm(sizes.width, config.rms_norm_eps)
        self.head_size, self.rope_theta = sizes.width // self.num_heads, config.rope_theta

    def begin(self, hidden: Tensor) -> ChunkState:
        """The projections [R, K, w], and no keys and values [R, layers, 2, heads, 0, e] yet; then the first input."""
        places = self.place(hidden).unflatten(-1, (-1, self.width))
        empty = hidden.new_empty((len(hidden), len(self.layers), 2, self.num_heads, 0, self.head_size))
        return self.advance((hidden, places, empty), self.first.expand(len(hidden), -1))

    def advance(self, state: ChunkState, embedded: Tensor) -> ChunkState:
        """Reads one more token: [R, d]."""
        _, places, held = state
        index = held.shape[-2]
        x = (self.token(embedded) + places[:, index])[:, None]
        position = torch.full((1,), index, device=x.device)
        cosine, sine = rotary_angles(position, self.head_size, self.rope_theta, x.dtype)
        kept: list[Tensor] = []

        def attention(query: Tensor, key: Tensor, value: Tensor, before: Tensor) -> Tensor:
            new = torch.stack([key.transpose(1, 2), value.transpose(1, 2)], dim=1)
            kept.append(torch.cat([before, new], dim=-2))
            return attend(query, kept[-1][:, 0], kept[-1][:, 1])

        for number, layer in enumerate(self.layers):
            x = layer(x, cosine, sine, partial(attention, before=held[:, number]))
        return self.norm(x[:, 0]), places, torch.stack(kept, dim=1)

    def feature(self, state: ChunkState) -> Tensor:
        """What the softmax reads: -> [R, w]."""
        return state[0]

    def features(self, hidden: Tensor, embedded: Tensor) -> Tensor:
        """All of a chunk's at once: [R, d] and its first K - 1 tokens [R, K - 1, d] -> [R, K, w]."""
        inputs = torch.cat([self.first.expand(len(hidden), 1, -1), embedded], dim=1)
        x = self.token(inputs) + self.place(hidden).unflatten(-1, (-1, self.width))
        places = torch.arange(x.shape[1], device=x.device)
        cosine, sine = rotary_angles(places, self.head_size, self.rope_theta, x.dtype)
        for layer in self.layers:
            x = layer(x, cosine, sine, causal)
        out: Tensor = self.norm(x)
        return out


class PatchModel(ExactModel):
    """The backbone over chunks and a decoder inside each."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        scale = self.backbone.initializer_range
        self.input_projection = ChunkInput(config, scale)
        self.head = RecurrentDecoder(config) if config.decoder.kind == "gru" else TransformerDecoder(config)
        start(self.head, scale)
        nn.init.normal_(self.head.first, std=scale)
        self.lm_head = nn.Linear(decoder_sizes(config).output, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=scale)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.input_projection.read(self.backbone, tokens, self.chunk_size)

    def features(self, hidden: Tensor, chunks: Tensor) -> Tensor:
        return self.head.features(hidden, unit_embeddings(self.backbone, chunks[:, :-1]))

    def begin(self, hidden: Tensor) -> ChunkState:
        return self.head.begin(hidden)

    def feature(self, state: ChunkState) -> Tensor:
        return self.head.feature(state)

    def advance(self, state: ChunkState, tokens: Tensor) -> ChunkState:
        return self.head.advance(state, unit_embeddings(self.backbone, tokens))
