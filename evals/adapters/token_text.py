"""Text from anything that draws tokens: a sampler and its tokenizer.

Shape letters: C contexts, S samples, H tokens of a round, K chunk size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calm_bench.seeding import derive
from calm_bench.tokens.tokenizer import Tokenizer
from evals.adapters.token_bytes import token_bytes
from evals.brier import Integers
from evals.protocol import EvaluationError
from evals.samplers import Sampler, sample_contexts
from evals.text_units import TextUnit

TOKENS_PER_WORD = 3
"""Tokens drawn at first for each word of a vocabulary that merges bytes; one of single bytes draws 8."""
BYTES_PER_WORD = 8
TAIL = 16
"""Tokens of the context that a token is decoded after, where its own bytes are not known."""


class TokenTextSampler:
    """A :class:`evals.text_brier.TextSampler` out of a token sampler.

    Tokens are drawn until the text is settled, a fixed number first, then each time twice as many. A text ends with
    the tokenizer's end-of-text token; other special tokens write nothing. Drawing stops without an end once twice as
    many tokens are drawn as the unit has bytes at most, which only tokens that write nothing can bring about, or when
    the model's positions are used up; what is missing then is the outcome None, like what an end leaves out.
    """

    def __init__(self, sampler: Sampler, tokenizer: Tokenizer, prefix: Sequence[int] = ()) -> None:
        """
        Args:
            prefix: ids before every context, such as the beginning-of-text token that a model was trained with.

        Raises:
            EvaluationError: sampler and tokenizer have different vocabularies.
        """
        if sampler.vocab_size != tokenizer.vocab_size:
            raise EvaluationError(
                f"the model has a vocabulary of {sampler.vocab_size} tokens, the tokenizer {tokenizer.name} one of "
                f"{tokenizer.vocab_size}: give the tokenizer that the model was trained with"
            )
        self._sampler, self._tokenizer, self._prefix = sampler, tokenizer, list(prefix)
        self._bytes = token_bytes(tokenizer)
        beginning = tokenizer.encode("a")
        # Some tokenizers write a space before every text.
        self._adds_space = self._bytes is not None and b"".join(self._bytes[token] for token in beginning) == b" a"

    def sample_text(
        self, contexts: Sequence[str], num_samples: int, unit: TextUnit, num_units: int, seeds: Sequence[int]
    ) -> list[list[bytes]]:
        """See :class:`evals.text_brier.TextSampler`.

        Raises:
            ValueError: as the sampler.
            EvaluationError: a context that is longer than the model's positions; or what the sampler gives are no
                tokens of its vocabulary.
        """
        begins = [self._begin(ids) for ids in self._tokenizer.encode_batch(list(contexts))]
        size = self._round(unit, num_units)
        for context, begin in zip(contexts, begins, strict=True):
            self._check_positions(context, len(begin), size)
        limit = 2 * unit.most_bytes(num_units)
        first = sample_contexts(self._sampler, begins, num_samples, size, seeds)
        drafts = [
            [_Draft(begin, context, derive(seed, "sample", index)) for index in range(num_samples)]
            for begin, context, seed in zip(begins, contexts, seeds, strict=True)
        ]
        waiting = [draft for own in drafts for draft in own]
        drawn = first.reshape(-1, size)
        while waiting:
            for draft, tokens in zip(waiting, drawn, strict=True):
                self._extend(draft, tokens, unit, num_units)
                if len(draft.tokens) >= limit or not self._fits(draft, 2 * size):
                    draft.done = True
            waiting = [draft for draft in waiting if not draft.done]
            size *= 2
            if waiting:
                # A whole number of chunks was added, so a chunk model reads the context cut as before.
                texts = [np.concatenate([draft.begin, draft.tokens]).astype(np.int64) for draft in waiting]
                own = [derive(draft.seed, "round", len(draft.tokens)) for draft in waiting]
                drawn = sample_contexts(self._sampler, texts, 1, size, own)[:, 0]
        return [[draft.text for draft in own] for own in drafts]

    def _begin(self, ids: Sequence[int]) -> Integers:
        """What a context is read as; never shorter than a chunk, which later rounds would cut otherwise."""
        tokens = [*self._prefix, *ids]
        missing = max(0, self._sampler.chunk_size - len(tokens))
        return np.array([self._tokenizer.eos_id] * missing + tokens, dtype=np.int64)

    def _check_positions(self, context: str, length: int, size: int) -> None:
        positions = self._positions
        # The last token drawn is not read.
        if positions is not None and length + size - 1 > positions:
            raise EvaluationError(
                f"a context of {len(context.encode())} bytes, {length} tokens, and the {size} tokens that follow are "
                f"longer than the model's {positions} positions: score tokens (calm-bench eval MODEL --protocols "
                f"matched evaluation.context_length={positions}), or in Python lower context_bytes and first_position "
                "(text_protocol_for)"
            )

    @property
    def _positions(self) -> int | None:
        """Of the model, where it has a limit."""
        found: int | None = getattr(self._sampler, "max_positions", None)
        return found

    def _round(self, unit: TextUnit, num_units: int) -> int:
        """H: the same for every context, so that no context's draws depend on others."""
        single = self._bytes is not None and max(map(len, self._bytes)) == 1
        per_unit = 1 if unit.name == "bytes" else BYTES_PER_WORD if single else TOKENS_PER_WORD
        chunk_size = self._sampler.chunk_size
        return -(-num_units * per_unit // chunk_size) * chunk_size

    def _fits(self, draft: _Draft, size: int) -> bool:
        positions = self._positions
        return positions is None or len(draft.begin) + len(draft.tokens) + size <= positions

    def _extend(self, draft: _Draft, tokens: Integers, unit: TextUnit, num_units: int) -> None:
        ends = np.flatnonzero(tokens == self._tokenizer.eos_id)
        draft.tokens += tokens[: ends[0] if len(ends) else None].tolist()
        draft.text = self._text(draft)
        draft.done = len(ends) > 0 or unit.settled(draft.text, num_units)

    def _text(self, draft: _Draft) -> bytes:
        if self._bytes is None:
            # The text of a token may depend on the one before it, which is therefore decoded along.
            tail = draft.begin[-TAIL:].tolist()
            drawn = [token for token in draft.tokens if token < self._tokenizer.vocab_size]
            before, after = self._tokenizer.decode(tail), self._tokenizer.decode([*tail, *drawn])
            known = after.startswith(before)
            return (after[len(before) :] if known else self._tokenizer.decode(drawn)).encode()
        text = b"".join(self._bytes[token] if token < len(self._bytes) else b"" for token in draft.tokens)
        return text.removeprefix(b" ") if self._adds_space and not draft.context else text


@dataclass
class _Draft:
    """A continuation in the making."""

    begin: Integers
    context: str
    seed: int
    tokens: list[int] = field(default_factory=list)
    text: bytes = b""
    done: bool = False
