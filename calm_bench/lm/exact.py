"""Models that know the probability of every chunk, token by token: softmaxes over the vocabulary.

A chunk's probability is a product over its tokens, each given those before it in the chunk. So everything that other
models do by sampling is exact here: likelihood, temperature, chunks that begin with known tokens, and what two
continuations have in common.

Shape legend: R rows (hidden states), K tokens of a chunk, d hidden size, w width of what the softmax reads, V
vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from calm_bench import blockwise
from calm_bench.finite import require_finite
from calm_bench.heads.noise import Noise, RowSources
from calm_bench.lm.base import ChunkLanguageModel, chunks_of

ChunkState = tuple[Tensor, ...]
"""What is known of R chunks of which some tokens are drawn: tensors whose first dimension is R."""


class ExactModel(ChunkLanguageModel):
    """A model that predicts the tokens of a chunk one after the other, each by one softmax.

    A subclass says what the softmax reads: for chunks that are known whole (:meth:`features`), as in training, and step
    by step (:meth:`begin`, :meth:`feature`, :meth:`advance`), as in drawing. Both must be the same function.
    """

    likelihood = "exact"
    lm_head: nn.Linear
    """Without bias: the softmax is that of ``feature @ lm_head.weight.T``."""

    @abstractmethod
    def features(self, hidden: Tensor, chunks: Tensor) -> Tensor:
        """What the softmax of each token reads, given the tokens before it: [R, d], ids [R, K] -> [R, K, w]."""

    @abstractmethod
    def begin(self, hidden: Tensor) -> ChunkState:
        """Chunks of which no token is drawn yet: [R, d] -> R chunks."""

    @abstractmethod
    def feature(self, state: ChunkState) -> Tensor:
        """What the softmax of the next token reads: R chunks -> [R, w]."""

    @abstractmethod
    def advance(self, state: ChunkState, tokens: Tensor) -> ChunkState:
        """The same chunks with one more token each, ids [R]; never called for the last token of a chunk."""

    def logits(self, state: ChunkState) -> Tensor:
        """Logits of the next token: R chunks -> [R, V], fp32."""
        return self.lm_head(self.feature(state)).float()  # type: ignore[no-any-return]

    def next_probabilities(self, state: ChunkState) -> Tensor:
        """Distribution of the next token: R chunks -> [R, V], fp32."""
        return self.logits(state).softmax(dim=-1)

    def log_probabilities(self, hidden: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of each token's probability given those before it, and the likeliest token in its place.

        Args:
            hidden: [R, d].
            chunks: ids [R, K]; what stands behind a token does not matter to it.

        Returns:
            fp32 [R, K], and ids [R, K].
        """
        found, likeliest = [], []
        rows = max(1, blockwise.decoding_rows(self.lm_head.weight) // self.chunk_size)
        for states, tokens in zip(hidden.split(rows), chunks.split(rows), strict=True):
            read = self.features(states, tokens).flatten(0, 1)
            logs, best = blockwise.log_probabilities_and_argmax(read, self.lm_head.weight, tokens.flatten())
            found.append(logs.view(tokens.shape))
            likeliest.append(best.view(tokens.shape))
        return torch.cat(found), torch.cat(likeliest)

    def log_likelihoods(
        self, hidden: Tensor, chunks: Tensor, num_samples: int, generator: Generator | None = None
    ) -> Tensor:
        return self.log_probabilities(hidden, chunks)[0].sum(dim=-1)

    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        uniform = noise.uniform(self.chunk_size)  # [S, ..., K]
        numbers = uniform.reshape(len(uniform), -1, self.chunk_size).transpose(0, 1)  # [R, S, K]
        states = hidden.expand(uniform.shape[1:-1] + hidden.shape[-1:]).reshape(-1, hidden.shape[-1])
        return self._draw(states, numbers).transpose(0, 1).reshape(uniform.shape)

    def draw_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> Tensor:
        # A state's first distribution is computed once for all samples that share it: they become its row's columns.
        order = state.argsort(stable=True)
        count = torch.bincount(state, minlength=len(hidden))
        slot = torch.empty_like(state)
        slot[order] = torch.arange(len(state), device=state.device) - (count.cumsum(0) - count)[state[order]]
        if self.chunk_size > 1 and len(hidden) * int(count.max()) > 2 * len(state):
            # Later tokens are drawn for the places that nobody has too.
            uniform = noise.uniform(self.chunk_size)
            return self._draw(hidden[state], uniform[:, None])[:, 0]
        uniform = hidden.new_zeros((len(hidden), int(count.max()), self.chunk_size), dtype=torch.float32)
        uniform[state, slot] = noise.uniform(self.chunk_size)
        return self._draw(hidden, uniform)[state, slot]

    def _draw(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        """Chunks that numbers in [0, 1) select, a block of rows at a time: [R, d] and [R, S, K] -> ids [R, S, K]."""
        samples = uniform.shape[1] if self.chunk_size > 1 else 1
        rows = max(1, blockwise.decoding_rows(self.lm_head.weight) // samples)
        blocks = zip(hidden.split(rows), uniform.split(rows), strict=True)
        return torch.cat([self._drawn(states, numbers) for states, numbers in blocks])

    def _drawn(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        state = self.begin(hidden)
        # The first token's distribution is one for all samples of a row.
        tokens = [select_tokens(self.logits(state), uniform[..., 0])]
        sample = torch.arange(len(hidden), device=hidden.device).repeat_interleave(uniform.shape[1])
        state = rows_of(state, sample) if self.chunk_size > 1 else state
        for index in range(1, self.chunk_size):
            state = self.advance(state, tokens[-1].flatten())
            chosen = select_tokens(self.logits(state), uniform[..., index].reshape(-1, 1))
            tokens.append(chosen.view(uniform.shape[:-1]))
        return torch.stack(tokens, dim=-1)

    def draw_tempered(self, hidden: Tensor, uniform: Tensor, inverse: float, known: Sequence[Sequence[int]]) -> Tensor:
        """One chunk of every row whose tokens are drawn at a temperature, each from its own tempered softmax.

        Args:
            hidden: [R, d].
            uniform: [R, K], in [0, 1), by which tokens are selected.
            inverse: 1 / T: what logits are multiplied by.
            known: first tokens of each row's chunk, which are kept.

        Returns:
            ids [R, K].
        """
        state = self.begin(hidden)
        tokens: list[Tensor] = []
        for index in range(self.chunk_size):
            if index:
                state = self.advance(state, tokens[-1])
            drawn = select_tokens(self.logits(state) * inverse, uniform[:, index : index + 1])[:, 0]
            given = [begin[index] if index < len(begin) else -1 for begin in known]
            if max(given) >= 0:
                forced = torch.tensor(given, device=drawn.device)
                drawn = torch.where(forced >= 0, forced, drawn)
            tokens.append(drawn)
        return torch.stack(tokens, dim=-1)

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy in nats of all tokens but those of the first chunk."""
        hidden = self.hidden_states(tokens[:, : -self.chunk_size]).flatten(0, 1)
        chunks = chunks_of(tokens[:, self.chunk_size :], self.chunk_size).flatten(0, 1)
        read = self.features(hidden, chunks).flatten(0, 1)
        loss = blockwise.cross_entropy(read, self.lm_head.weight, chunks.flatten())
        return loss, {"cross_entropy": loss.detach()}


def rows_of(state: ChunkState, rows: Tensor) -> ChunkState:
    """The chunks ``rows``, Long [n] of R; one may be asked for several times."""
    return tuple(part[rows] for part in state)


def select_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """The tokens at which the cumulative distribution of ``softmax(logits)`` passes ``uniform``.

    Args:
        logits: [R, V].
        uniform: [R, S], in [0, 1).

    Returns:
        ids [R, S].

    Raises:
        NotFinite: a logit is NaN or infinite; later inside :func:`~calm_bench.finite.deferred_checks`.
    """
    cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    require_finite(total, "logits")
    # Rounding must not select what follows the last token that has a probability. NaN is found behind all tokens, which
    # would be no id to go on with until a deferred check is settled.
    last = torch.searchsorted(cumulative, total).clamp_max(logits.shape[-1] - 1)
    return torch.searchsorted(cumulative, (uniform * total).contiguous(), right=True).minimum(last)


def draw_tokens(logits: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
    """Samples of every row's distribution from the row's own generator: [R, V] -> ids [num_samples, R, 1]."""
    uniform = RowSources(logits, num_samples, generators).uniform(1).squeeze(-1)
    return select_tokens(logits, uniform.T).T.unsqueeze(-1)
