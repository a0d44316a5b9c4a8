"""Encoder, decoder and their container.

Shape legend: B any leading dimensions, K tokens of a chunk, H hidden size, Z latent size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from calm_bench import blockwise
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.gated import gated
from calm_bench.norms import RMSNorm
from calm_bench.regions import region
from calm_bench.weights import load_weights, read_description, save_weights


class GatedBlock(nn.Module):
    """Pre-norm residual SwiGLU block on [..., H]; no attention, so every row is on its own."""

    def __init__(self, hidden_size: int, intermediate_size: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_size, eps=eps)
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    @region
    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        out: Tensor = x + self.down_proj(gated(self.gate_proj(normed), self.up_proj(normed)))
        return out


class Encoder(nn.Module):
    """Chunks of token ids [B, K] to the posterior's mean and log standard deviation, each [B, Z]."""

    def __init__(self, config: AutoencoderConfig, chunk_size: int, vocab_size: int) -> None:
        super().__init__()
        hidden, half, eps = config.hidden_size, config.num_encoder_layers // 2, config.rms_norm_eps
        self.embedding = nn.Embedding(vocab_size, hidden)
        self.token_blocks = nn.ModuleList(GatedBlock(hidden, config.intermediate_size, eps) for _ in range(half))
        self.squeeze = nn.Linear(chunk_size * hidden, hidden)
        self.chunk_blocks = nn.ModuleList(GatedBlock(hidden, config.intermediate_size, eps) for _ in range(half))
        self.norm = RMSNorm(hidden, eps=eps)
        self.to_latent = nn.Linear(hidden, 2 * config.latent_size)
        # A dropped token becomes a vector of its own: writing an ordinary token's id would ask the model to
        # reconstruct text it was shown as different text.
        self.mask_embedding = nn.Parameter(torch.zeros(hidden)) if config.dropped_token == "mask" else None

    def embed(self, chunks: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Embeddings [B, K, H] of ids [B, K], the mask embedding where they are ``dropped``."""
        x: Tensor = self.embedding(chunks)
        if dropped is not None and self.mask_embedding is not None:
            x = torch.where(dropped.unsqueeze(-1), self.mask_embedding.to(x.dtype), x)
        return x

    def forward(
        self, chunks: Tensor, dropped: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            chunks: ids [B, K].
            dropped: Bool [B, K], tokens to hide behind the mask embedding.
            context: [B, H] of an autoencoder that reads the chunk before.
        """
        x = self.embed(chunks, dropped)
        for block in self.token_blocks:
            x = block(x)
        x = self.squeeze(x.flatten(-2))
        if context is not None:
            x = x + context
        for block in self.chunk_blocks:
            x = block(x)
        mean, log_std = self.to_latent(self.norm(x)).chunk(2, dim=-1)
        return mean, log_std


class Decoder(nn.Module):
    """Latents [B, Z] to one hidden vector per token, [B, K, H]; logits are its product with the embedding."""

    def __init__(self, config: AutoencoderConfig, chunk_size: int) -> None:
        super().__init__()
        hidden, half, eps = config.hidden_size, config.num_decoder_layers // 2, config.rms_norm_eps
        self.chunk_size = chunk_size
        self.from_latent = nn.Linear(config.latent_size, hidden)
        self.chunk_blocks = nn.ModuleList(GatedBlock(hidden, config.intermediate_size, eps) for _ in range(half))
        self.expand = nn.Linear(hidden, chunk_size * hidden)
        self.token_blocks = nn.ModuleList(GatedBlock(hidden, config.intermediate_size, eps) for _ in range(half))
        self.norm = RMSNorm(hidden, eps=eps)
        self.context_norm = RMSNorm(hidden, eps=eps) if config.context_chunks else None

    def forward(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        return self._tokens(self.expand(self.chunk(latents, context)).unflatten(-1, (self.chunk_size, -1)))

    def chunk(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """The part that the tokens share: [B, Z] -> [B, H], with ``context`` [B, H] where there is one."""
        x: Tensor = self.from_latent(latents)
        if context is not None and self.context_norm is not None:
            x = x + self.context_norm(context)
        for block in self.chunk_blocks:
            x = block(x)
        return x

    def token(self, chunk: Tensor, index: int) -> Tensor:
        """One token's hidden vector, from what :meth:`chunk` gives: [B, H] -> [B, H]."""
        own = slice(index * chunk.shape[-1], (index + 1) * chunk.shape[-1])
        return self._tokens(functional.linear(chunk, self.expand.weight[own], self.expand.bias[own]))

    def _tokens(self, x: Tensor) -> Tensor:
        for block in self.token_blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out


class Context(nn.Module):
    """What the chunk before says of a chunk, for encoder and decoder: its embeddings to one vector.

    A latent then need not hold what the decoder can tell from the text, as where a word goes on.
    """

    def __init__(self, config: AutoencoderConfig, chunk_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.squeeze = nn.Linear(chunk_size * hidden, hidden)
        self.block = GatedBlock(hidden, config.intermediate_size, config.rms_norm_eps)
        self.nothing = nn.Parameter(torch.zeros(hidden))
        """In place of a chunk before the first."""

    def forward(self, embedded: Tensor) -> Tensor:
        """[B, K, H] -> [B, H]."""
        out: Tensor = self.block(self.squeeze(embedded.flatten(-2)))
        return out


class Autoencoder(nn.Module):
    """Variational autoencoder of token chunks; the output projection is the encoder's embedding, one parameter."""

    def __init__(self, config: AutoencoderConfig, chunk_size: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.chunk_size = chunk_size
        self.vocab_size = vocab_size
        self.latent_size = config.latent_size
        self.encoder = Encoder(config, chunk_size, vocab_size)
        self.decoder = Decoder(config, chunk_size)
        self.apply(_initialise)
        # The last, so that all other weights start as they do without it.
        self.context = Context(config, chunk_size).apply(_initialise) if config.context_chunks else None

    @property
    def span(self) -> int:
        """Tokens of a chunk and of the chunks before that it is read beside."""
        return (1 + self.config.context_chunks) * self.chunk_size

    @property
    def context_size(self) -> int:
        """Numbers of a context; 0 where chunks are read alone."""
        return self.config.hidden_size if self.context is not None else 0

    def context_after(self, chunks: Tensor, dropped: Tensor | None = None) -> Tensor | None:
        """What is handed on to the next chunk: ids [..., K] -> [..., H]; None where chunks are read alone."""
        if self.context is None:
            return None
        read: Tensor = self.context(self.encoder.embed(chunks, dropped))
        return read

    def contexts(self, chunks: Tensor, dropped: Tensor | None = None) -> Tensor | None:
        """Contexts of successive chunks, nothing before the first: ids [..., n, K] -> [..., n, H]."""
        read = self.context_after(chunks, dropped)
        if read is None or self.context is None:
            return None
        nothing = self.context.nothing.to(read.dtype).expand_as(read[..., :1, :])
        return torch.cat([nothing, read[..., :-1, :]], dim=-2)

    def encode(
        self, tokens: Tensor, dropped: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Posterior of every chunk: ids [..., n * K] -> mean and log_std, each [..., n, Z].

        Args:
            context: [..., n, H]; unset, and where there is one, that of the chunks before within ``tokens``.
        """
        chunks = tokens.unflatten(-1, (-1, self.chunk_size))
        if context is None:
            context = self.contexts(chunks, dropped)
        mean, log_std = self.encoder(chunks, dropped, context)
        return mean, log_std

    def decoder_hidden(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """[..., Z], with contexts [..., H] -> [..., K, H], what the tied embedding turns into logits."""
        hidden: Tensor = self.decoder(latents, context)
        return hidden

    def logits(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """[..., Z] -> [..., K, V]; for inspection, since training and decoding never hold all of them."""
        return functional.linear(self.decoder_hidden(latents, context), self.encoder.embedding.weight)

    def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Most likely tokens: [..., Z] -> [..., K] ids, a block of chunks at a time, which bounds the memory.

        Args:
            context: [..., H], broadcast to ``latents``; None where chunks are read alone.
        """
        weight = self.encoder.embedding.weight
        rows = max(1, blockwise.argmax_rows(weight) // self.chunk_size)
        tokens = [
            blockwise.argmax(self.decoder_hidden(*block).flatten(0, 1), weight)
            for block in _blocks(latents, context, rows)
        ]
        return torch.cat(tokens).view(*latents.shape[:-1], self.chunk_size)

    def log_likelihoods(self, latents: Tensor, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """``log prod_k p(x_k | z)`` of chunks: latents [..., Z] and ids [..., K] -> [...], fp32; no gradient."""
        (flat, own), *_ = _blocks(latents, context, None)
        hidden = self.decoder_hidden(flat, own).flatten(0, 1)
        weight = self.encoder.embedding.weight
        each, _ = blockwise.log_probabilities_and_argmax(hidden, weight, tokens.flatten())
        return each.view(tokens.shape).sum(dim=-1)

    def decode_token(self, chunk: Tensor, index: int, among: Tensor | None = None) -> Tensor:
        """Most likely token at one place of each chunk, from ``decoder.chunk(latents)``: [rows, H] -> [rows] ids.

        Args:
            among: Long [rows, n], the ids that matter: a token that is none of them may be told as -1.
        """
        weight, size = self.encoder.embedding.weight, blockwise.argmax_rows(self.encoder.embedding.weight)
        hidden = (self.decoder.token(block, index) for block in chunk.split(size))
        if among is None:
            return torch.cat([blockwise.argmax(block, weight) for block in hidden])
        pairs = zip(hidden, among.split(size), strict=True)
        return torch.cat([blockwise.argmax_among(block, weight, own) for block, own in pairs])

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        save_weights(self, folder, self.description())

    def description(self) -> dict[str, object]:
        architecture = self.config.model_dump(mode="json", exclude={"training", "chunk_size", "pretrained"})
        return {
            "model_type": "calm_bench_autoencoder",
            "chunk_size": self.chunk_size,
            "vocab_size": self.vocab_size,
            "autoencoder": architecture,
        }

    @staticmethod
    def from_description(description: dict[str, object]) -> Autoencoder:
        """An untrained autoencoder of the described sizes."""
        config = AutoencoderConfig.model_validate(description["autoencoder"])
        return Autoencoder(config, int(str(description["chunk_size"])), int(str(description["vocab_size"])))


def load_autoencoder(folder: str | Path, device: str = "cpu") -> Autoencoder:
    """Read what :meth:`Autoencoder.save` wrote, in evaluation mode.

    Raises:
        WeightsError: the folder holds something else, or keys or shapes do not match.
    """
    model = Autoencoder.from_description(read_description(folder, "calm_bench_autoencoder"))
    load_weights(model, folder)
    return model.to(device).eval()


def _blocks(latents: Tensor, context: Tensor | None, rows: int | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Latents [..., Z] as blocks [rows, Z] with their contexts [rows, H]; all at once without ``rows``."""
    flat = latents.reshape(-1, latents.shape[-1])
    size = rows or max(1, len(flat))
    if context is None:
        return ((block, None) for block in flat.split(size))
    contexts = context.expand(*latents.shape[:-1], -1).reshape(len(flat), -1)
    return zip(flat.split(size), contexts.split(size), strict=True)


def _initialise(module: nn.Module) -> None:
    """Scale every matrix by its input width, so that a narrow model starts as distinct as a wide one.

    The fixed 0.02 of the reference suits its 512 units; at 64 to 128 it leaves the embeddings of rare tokens so close
    together that a short training never tells them apart.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
