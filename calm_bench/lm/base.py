"""What all language models here have in common: read chunks, predict the next chunk, draw samples of it.

Shape legend: B sequences, n backbone steps (chunks), K tokens of a chunk, d hidden size, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import NotFinite as NotFinite  # by this name known to code elsewhere
from calm_bench.heads.noise import Noise, OneSource, RowSources
from calm_bench.lm.backbone import Backbone
from calm_bench.lm.cache import Cache
from calm_bench.lm.documents import document_starts, inside_documents, read_apart
from calm_bench.lm.fixed_cache import FixedCache
from calm_bench.lm.tree import Nodes, Text
from calm_bench.weights import save_weights


class LazyChunks(ABC):
    """Chunks that have been drawn, one of each of Q samples, but whose tokens are computed when they are asked for."""

    def pays_to_know(self, num_samples: int) -> bool:
        """Whether the tokens of so many samples cost less if for about half of them it is known which ids matter."""
        return False

    @abstractmethod
    def token(self, index: int, samples: Tensor, among: Tensor | None = None) -> Tensor:
        """Token ``index`` of the chunks of ``samples``, Long [q] of Q: ids [q].

        Args:
            among: Long [q, n], the ids that matter: a token that is none of them may be told as -1.
        """


class DrawnChunks(LazyChunks):
    """All tokens at once: ids [Q, K]."""

    def __init__(self, chunks: Tensor) -> None:
        self._chunks = chunks

    def token(self, index: int, samples: Tensor, among: Tensor | None = None) -> Tensor:
        return self._chunks[samples, index]


class ChunkLanguageModel(nn.Module, ABC):
    """A Llama-style backbone that takes one step per chunk of K tokens; the token model is the case K = 1."""

    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "none"
    """What :meth:`log_likelihoods` gives."""
    document_end: int | None = None
    """The token that ends a document, where attention stays inside documents (:mod:`calm_bench.lm.documents`)."""
    draws_by_rows = True
    """Whether :meth:`loss` takes every random number from :func:`calm_bench.row_noise.draw`, by its B sequences, and is
    a mean over them: several workers can then share the rows of one micro-batch."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.chunk_size = config.chunk_size
        self.vocab_size = vocab_size
        self.backbone = Backbone(
            vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_layers,
            config.num_attention_heads,
            config.key_value_heads,
            config.rope_theta,
            config.rms_norm_eps,
        )

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Inputs of the backbone: ids [..., n * K] -> [..., n, d]."""

    @abstractmethod
    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        """Samples of the next chunk at temperature 1: [..., d] -> ids [S, ..., K] for the S samples of ``noise``.

        Raises:
            NotFinite: the model gives NaN or infinity.
        """

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Independent samples of the next chunk at temperature 1: [..., d] -> ids [num_samples, ..., K]."""
        return self.draw_from(hidden, OneSource(hidden, num_samples, generator))

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        """As :meth:`draw`, every row from a generator of its own: [R, d] -> ids [num_samples, R, K].

        Row r is what ``draw(hidden[r], num_samples, generators[r])`` gives, whatever the other rows are.
        """
        return self.draw_from(hidden, RowSources(hidden, num_samples, generators))

    def draw_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> Tensor:
        """One sample each of Q samples that share N hidden states: [N, d] and Long [Q] -> ids [Q, K].

        Args:
            state: the row of ``hidden`` that each sample continues.
            noise: serves Q samples.
        """
        return self.draw_from(hidden[state], noise)

    def draft(self, hidden: Tensor, noise: Noise) -> LazyChunks:
        """As :meth:`draw_from`, for when not all tokens are needed: [..., d] -> samples in the order [S, ...]."""
        return DrawnChunks(self.draw_from(hidden, noise).reshape(-1, self.chunk_size))

    def draft_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> LazyChunks:
        """As :meth:`draw_each`, for when not all tokens are needed."""
        return DrawnChunks(self.draw_each(hidden, state, noise))

    @abstractmethod
    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of predicting every chunk but the first: ids [B, n * K] -> scalar and named scalar terms."""

    def log_likelihoods(
        self, hidden: Tensor, chunks: Tensor, num_samples: int, generator: Generator | None = None
    ) -> Tensor:
        """Log-likelihood of whole chunks in nats: [R, d], ids [R, K] -> fp32 [R].

        The true one where the model knows it, else a lower bound in expectation (:attr:`likelihood` says which).

        Args:
            num_samples: draws behind a bound.

        Raises:
            NotImplementedError: the model knows neither.
        """
        raise NotImplementedError(f"a {self.config.kind} model knows nothing of the probability of a chunk")

    def description(self) -> dict[str, Any]:
        """Everything but the weights that is needed to build this model again."""
        return {
            "model_type": f"calm_bench_{self.config.kind}",
            "vocab_size": self.vocab_size,
            "model": self.config.model_dump(mode="json", exclude={"training", "pretrained"}),
            **({} if self.document_end is None else {"document_end": self.document_end}),
        }

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """ids [B, n * K] -> [B, n, d]; position p has read chunks 0 to p and predicts chunk p + 1."""
        if self.document_end is None:
            hidden: Tensor = self.backbone(self.embed(tokens))
            return hidden
        apart, begins = read_apart(tokens, self.chunk_size, self.document_end)
        starts = document_starts(begins)
        steps = torch.arange(starts.shape[-1], device=starts.device)
        attention = inside_documents(starts, self.backbone.head_size)
        inside: Tensor = self.backbone(self.embed(apart), steps - starts, repeat(attention))
        return inside

    def read_text(self, tokens: Tensor) -> Text:
        """Read ids [B, n * K] once, to continue them at many positions; without gradients."""
        if self.document_end is None:
            return Text(self.backbone, self.embed(tokens))
        apart, begins = read_apart(tokens, self.chunk_size, self.document_end)
        return Text(self.backbone, self.embed(apart), document_starts(begins))

    def descend(self, nodes: Nodes, parent: Tensor, chunks: Tensor, window: Tensor, prefix: Tensor) -> Tensor:
        """Let continuations of a text that was read go on by one chunk each: :meth:`Nodes.descend` of ids [N, K]."""
        if self.document_end is None:
            return nodes.descend(parent, self.embed(chunks).squeeze(-2), window, prefix)
        apart, begins = read_apart(chunks, self.chunk_size, self.document_end)
        return nodes.descend(parent, self.embed(apart).squeeze(-2), window, prefix, begins.squeeze(-1))

    def new_cache(self, room: int | None = None) -> Cache:
        """An empty one for :meth:`read`.

        Args:
            room: the most chunks that are ever held, where that is known and steps of one shape are wanted: after a
                first :meth:`read` chunks are then read one by one. Where attention stays inside documents, what a step
                sees has no one shape, and the cache grows all the same.
        """
        if room is None or self.document_end is not None:
            return Cache(len(self.backbone.layers))
        return FixedCache(len(self.backbone.layers), room, self.backbone.embed_tokens.weight.device)

    def read(self, tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None = None) -> Tensor:
        """Read more of every row, which ``cache`` then holds too; without gradients.

        Args:
            tokens: ids [R, n * K].
            positions: Long [R, n], counted from the beginning of each row's own text.
            mask: Bool [R, L + n] for L chunks that are held, true at chunks of the row's text; the others are padding,
                which nothing sees. Unset means that there is none; for a cache with a fixed room, none but what the
                first mask told of.

        Returns:
            Hidden states [R, n, d].
        """
        backbone = cache.fused or self.backbone
        if self.document_end is None:
            inputs = self.embed(tokens)
            hidden: Tensor = backbone(inputs, positions, cache.attentions(inputs.shape[1], mask))
            return hidden
        apart, begins = read_apart(tokens, self.chunk_size, self.document_end)
        starts = cache.document_starts(positions, begins)
        inside: Tensor = backbone(self.embed(apart), positions - starts, cache.attentions_inside(starts, mask))
        return inside

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that training changes; leaves a frozen autoencoder out."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        save_weights(self, folder, self.description())


def chunks_of(tokens: Tensor, chunk_size: int) -> Tensor:
    """[..., n * K] -> [..., n, K].

    Raises:
        ValueError: the length is not a multiple of K.
    """
    if tokens.shape[-1] % chunk_size:
        raise ValueError(f"{tokens.shape[-1]} tokens are not a whole number of chunks of {chunk_size}")
    chunks: Tensor = tokens.unflatten(-1, (tokens.shape[-1] // chunk_size, chunk_size))
    return chunks
