"""Text from a prompt, chunk by chunk, with a key-value cache (temperature 1).

Shape letters: K chunk size, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from calm_bench.lm.base import ChunkLanguageModel

MAX_DRAWS = 4096
"""Draws spent on a chunk that must begin with the prompt's last tokens before :func:`generate` falls back."""
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class Generated:
    """What :func:`generate` returns."""

    tokens: list[int]
    """The new tokens, without the end-of-text token."""
    num_head_draws: int
    """Chunks drawn, rejected ones included: the cost of the head and the decoder."""
    fell_back: bool
    """The prompt's last tokens were not reproduced within the allowed draws, and the chunks were aligned anew."""
    ended: bool
    """The model drew the end of the text; otherwise ``max_new_tokens`` stopped it."""


@torch.no_grad()
def generate(
    model: ChunkLanguageModel,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    generator: torch.Generator,
    eos_id: int,
    max_draws: int = MAX_DRAWS,
    on_tokens: Callable[[list[int]], None] | None = None,
) -> Generated:
    """Continue ``prompt_ids`` by at most ``max_new_tokens`` tokens, or until the end of the text is drawn.

    Chunks are aligned with the prompt's start. Whole chunks of the prompt are read; if r < K tokens are left over, the
    next chunk is drawn until it begins with these r tokens (exact conditioning by rejection). After ``max_draws``
    failures the chunks are aligned with the prompt's end instead: its first r tokens are left out or, in a prompt
    shorter than a chunk, end-of-text tokens fill the chunk from the left. The result says so.

    A text starts after the end of another, so a prompt without a whole chunk is preceded by a chunk of end-of-text
    tokens.

    Args:
        prompt_ids: any number of tokens, none included.
        generator: on the model's device.
        on_tokens: called with each piece of new tokens as it is drawn.

    Raises:
        ValueError: a negative ``max_new_tokens``, ``max_draws`` below 1, or a token the model does not have.
    """
    if max_new_tokens < 0 or max_draws < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} must not be negative and max_draws {max_draws} at least 1")
    foreign = [token for token in [*prompt_ids, eos_id] if not 0 <= token < model.vocab_size]
    if foreign:
        raise ValueError(f"token {foreign[0]} is not in the model's vocabulary of {model.vocab_size}")
    if max_new_tokens == 0:
        return Generated([], 0, fell_back=False, ended=False)

    prompt, chunk_size = list(prompt_ids), model.chunk_size
    left_over = len(prompt) % chunk_size
    reader = _Reader(model)
    hidden = reader.read(prompt[: len(prompt) - left_over] or [eos_id] * chunk_size)
    num_draws, fell_back, known = 0, False, prompt[len(prompt) - left_over :]
    tokens: list[int] = []
    while True:
        chunk, draws = _draw_beginning_with(model, hidden, known, max_draws, generator)
        num_draws += draws
        if chunk is None:
            fell_back = True
            aligned = prompt[left_over:] if len(prompt) > chunk_size else [eos_id] * (chunk_size - left_over) + prompt
            reader = _Reader(model)
            hidden, known = reader.read(aligned), []
            continue
        piece = chunk[len(known) :][: max_new_tokens - len(tokens)]
        ended = eos_id in piece
        if ended:
            piece = piece[: piece.index(eos_id)]
        tokens += piece
        if piece and on_tokens is not None:
            on_tokens(piece)
        if ended or len(tokens) == max_new_tokens:
            return Generated(tokens, num_draws, fell_back, ended)
        hidden, known = reader.read(chunk), []


class _Reader:
    """Feeds chunks to the backbone, remembering the earlier ones."""

    def __init__(self, model: ChunkLanguageModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.backbone.config)
        self._device = next(model.parameters()).device

    def read(self, tokens: Sequence[int]) -> Tensor:
        """The hidden state ``[d]`` after whole chunks of ``tokens``."""
        inputs = self._model.embed(torch.tensor([tokens], dtype=torch.long, device=self._device))
        output = self._model.backbone(inputs_embeds=inputs, past_key_values=self._cache, use_cache=True)
        hidden: Tensor = output.last_hidden_state[0, -1]
        return hidden


def _draw_beginning_with(
    model: ChunkLanguageModel, hidden: Tensor, known: Sequence[int], max_draws: int, generator: torch.Generator
) -> tuple[list[int] | None, int]:
    """The first draw that begins with ``known``, or None, and the number of draws made."""
    if not known:
        return model.draw(hidden, 1, generator)[0].tolist(), 1
    begin = torch.tensor(known, device=hidden.device)
    num_draws, size = 0, 1
    while num_draws < max_draws:
        # Doubling: likely beginnings cost one draw, unlikely ones few calls.
        size = min(size, _DRAWS_AT_ONCE, max_draws - num_draws)
        chunks = model.draw(hidden, size, generator)  # [size, K]
        num_draws += size
        fitting = (chunks[:, : len(known)] == begin).all(dim=1).nonzero()
        if len(fitting):
            return chunks[fitting[0, 0]].tolist(), num_draws
        size *= 2
    return None, num_draws
