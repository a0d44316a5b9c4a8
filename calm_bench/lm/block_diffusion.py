"""Masked diffusion over the tokens of a block, autoregressive over blocks (BD3-LM, arXiv 2503.09573).

The backbone reads whole blocks and takes one step for each; a small bidirectional network, the denoiser, reads its
hidden state and the block's tokens, of which some are masked, and says what each masked token is. The authors' network
is one transformer over clean and noised tokens of the whole text; here its two parts are apart, so that a block costs
one step of the backbone as in the other families.

The bound that training minimises is that of masked diffusion with a linear schedule in continuous time, written by the
number of masked tokens: with m uniform on 1 to K and m random tokens of the block masked,
``-log p(x) <= E[K / m * sum over masked k of -log p(x_k | the others)]``.

Shape legend: R rows (hidden states), K tokens of a block, d hidden size, w width of the denoiser, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from calm_bench import blockwise
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.families.block_diffusion import denoiser_sizes, denoising_steps, most_masked
from calm_bench.heads.noise import Noise
from calm_bench.lm.backbone import Layer, RMSNorm, attend, rotary_angles
from calm_bench.lm.base import ChunkLanguageModel, chunks_of
from calm_bench.lm.chunked import ChunkInput, start, unit_embeddings
from calm_bench.lm.exact import select_tokens
from calm_bench.regions import compiles_regions
from calm_bench.row_noise import draw


class Denoiser(nn.Module):
    """Bidirectional layers over a block's tokens; each place has a projection of the hidden state added."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        width, layers, intermediate = denoiser_sizes(config)
        d, heads = config.hidden_size, config.num_attention_heads
        self.width, self.head_size, self.rope_theta = width, width // heads, config.rope_theta
        self.mask = nn.Parameter(torch.zeros(d))
        """Stands for a token that is masked."""
        self.token = nn.Linear(d, width)
        self.place = nn.Linear(d, config.chunk_size * width)
        sizes = (width, intermediate, heads, heads, config.rms_norm_eps)
        self.layers = nn.ModuleList(Layer(*sizes) for _ in range(layers))
        self.norm = RMSNorm(width, config.rms_norm_eps)

    def forward(self, hidden: Tensor, embedded: Tensor, masked: Tensor) -> Tensor:
        """What the softmax of each token reads: [R, d], [R, K, d] and Bool [R, K] -> [R, K, w]."""
        inputs = torch.where(masked[..., None], self.mask, embedded)
        x = self.token(inputs) + self.place(hidden).unflatten(-1, (-1, self.width))
        positions = torch.arange(x.shape[1], device=x.device)
        cosine, sine = rotary_angles(positions, self.head_size, self.rope_theta, x.dtype)
        for layer in self.layers:
            x = layer(x, cosine, sine, _both_ways)
        out: Tensor = self.norm(x)
        return out


class BlockDiffusionModel(ChunkLanguageModel):
    """The backbone over blocks and a denoiser inside each."""

    likelihood = "bound"

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        scale = self.backbone.initializer_range
        self.input_projection = ChunkInput(config, scale)
        self.head = Denoiser(config)
        start(self.head, scale)
        nn.init.normal_(self.head.mask, std=scale)
        self.lm_head = nn.Linear(self.head.width, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=scale)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.input_projection.read(self.backbone, tokens, self.chunk_size)

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound in nats per token, of all blocks but the first."""
        rows = tokens.shape[0] * (tokens.shape[1] // self.chunk_size - 1)
        uniform = draw(torch.rand, (rows, 1 + self.chunk_size), 0, generator, tokens.device)
        return self.loss_given(tokens, uniform)

    def loss_given(self, tokens: Tensor, uniform: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As :meth:`loss`, a pure function of tokens and noise.

        Args:
            uniform: [R, 1 + K] in [0, 1), for the R blocks that are predicted.
        """
        hidden = self.hidden_states(tokens[:, : -self.chunk_size]).flatten(0, 1)
        chunks = chunks_of(tokens[:, self.chunk_size :], self.chunk_size).flatten(0, 1)
        masked, weights = _masked(uniform, self.chunk_size)
        read = self.head(hidden, unit_embeddings(self.backbone, chunks), masked).flatten(0, 1)
        scale = torch.where(masked, weights[:, None], 0).flatten()
        chosen = _first_masked(masked) if has_fixed_shapes(tokens) else masked.flatten().nonzero()[:, 0]
        summed = blockwise.weighted_cross_entropy(
            read[chosen], self.lm_head.weight, chunks.flatten()[chosen], scale[chosen]
        )
        loss = summed / chunks.numel()
        return loss, {"bound": loss.detach()}

    def log_likelihoods(
        self, hidden: Tensor, chunks: Tensor, num_samples: int, generator: Generator | None = None
    ) -> Tensor:
        """The bound of a block, the mean over ``num_samples`` choices of what is masked."""
        total = torch.zeros(len(chunks), device=chunks.device)
        embedded = unit_embeddings(self.backbone, chunks)
        for _ in range(num_samples):
            uniform = torch.rand((len(chunks), 1 + self.chunk_size), generator=generator, device=chunks.device)
            masked, weights = _masked(uniform, self.chunk_size)
            read = self.head(hidden, embedded, masked).flatten(0, 1)
            logs, _ = blockwise.log_probabilities_and_argmax(read, self.lm_head.weight, chunks.flatten())
            total += weights * logs.view(chunks.shape).masked_fill(~masked, 0).sum(dim=-1)
        return total / num_samples

    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        size = self.chunk_size
        uniform = noise.uniform(2 * size)
        shape = uniform.shape[:-1]
        numbers = uniform.reshape(-1, 2 * size)
        states = hidden.expand(*shape, hidden.shape[-1]).reshape(-1, hidden.shape[-1])
        rows = max(1, blockwise.decoding_rows(self.lm_head.weight) // size)
        blocks = zip(states.split(rows), numbers.split(rows), strict=True)
        return torch.cat([self._denoised(own, several) for own, several in blocks]).reshape(*shape, size)

    def _denoised(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        """One block of every row: [R, d] and [R, 2 K] in [0, 1) -> ids [R, K].

        Tokens become known in a random order, in each step as many as in any other (up to rounding), independent of
        each other given those of the steps before.
        """
        size, steps = self.chunk_size, denoising_steps(self.config)
        order = uniform[:, :size].argsort(dim=-1)
        numbers = uniform[:, size:]
        tokens = torch.zeros_like(order)
        masked = torch.ones_like(tokens, dtype=torch.bool)
        for step in range(steps):
            positions = order[:, size * step // steps : size * (step + 1) // steps]
            read = self.head(hidden, unit_embeddings(self.backbone, tokens), masked)
            chosen = read.gather(1, positions[..., None].expand(-1, -1, read.shape[-1])).flatten(0, 1)
            drawn = select_tokens(self.lm_head(chosen), numbers.gather(1, positions).reshape(-1, 1))
            tokens = tokens.scatter(1, positions, drawn.view(positions.shape))
            masked = masked.scatter(1, positions, False)
        return tokens


def has_fixed_shapes(tokens: Tensor) -> bool:
    """Whether a loss computes a fixed number of tokens: a GPU would wait for the number of masked ones, and graphs
    would depend on it."""
    return tokens.is_cuda or torch.compiler.is_compiling() or compiles_regions()


def _masked(uniform: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which tokens are masked, Bool [R, K], and K / m for the m of each row, [R], from numbers [R, 1 + K] in [0, 1)."""
    count = (uniform[:, :1] * size).long().clamp_max(size - 1) + 1
    rank = uniform[:, 1:].argsort(dim=-1).argsort(dim=-1)
    return rank < count, size / count[:, 0].float()


def _first_masked(masked: Tensor) -> Tensor:
    """Indices of the masked tokens of [R, K] in their order, then of others: Long of :func:`most_masked`."""
    order = (~masked).flatten().byte().argsort(stable=True)
    return order[: most_masked(*masked.shape)]


def _both_ways(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key.transpose(1, 2), value.transpose(1, 2))
