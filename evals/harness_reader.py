"""How texts of lm-eval become tokens that a model reads: what fits, what is left out, where chunks are counted from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from calm_bench.opening import Vocabulary
from calm_bench.overrides import ConfigurationError
from evals.generation_requests import PROMPT_SHARE, GenerationRequest
from evals.protocol import EvaluationError
from evals.scorers import EXACT, SCORERS
from evals.scorers.scoring import Text

LOGGER = logging.getLogger(__name__)

WHERE_LENGTH = "--max-length of calm-bench eval, --model_args max_length=..., benchmarks.max_length of a study"
"""Where people say how much is read."""

Alignment = Literal["start", "continuation"]


@dataclass(frozen=True)
class HarnessSettings:
    """How requests of lm-eval are answered.

    Raises:
        ConfigurationError: values that cannot be used.
        UnknownName: a scorer that does not exist.
    """

    scorer: str | None = None
    """Scorer of chunk models; unset means the one that ranks best. Token models are exact and take none but
    ``exact``."""
    num_samples: int = 64
    """Draws of each chunk for a score, and candidates of each chunk for greedy generation."""
    max_length: int = 1024
    """Tokens that are read at most, prompt and answer together; of longer contexts the last ones. The same number
    wherever tasks are asked (``calm-bench eval``, ``calm-bench lm-eval``, a study), so that a task has one score."""
    alignment: Alignment = "continuation"
    """From where chunks are counted. ``start``: the context's first token, as in generation, so that most continuations
    begin inside a chunk, conditioned on its known tokens. ``continuation``: the continuation's first token; up to K - 1
    of the context's first tokens are left out, or end-of-text tokens are put before a context shorter than a chunk."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scorer not in (None, EXACT):
            SCORERS.get(str(self.scorer))
        if self.alignment not in get_args(Alignment):
            raise ConfigurationError(f"alignment {self.alignment!r} is neither of {', '.join(get_args(Alignment))}")
        if self.num_samples < 2:
            raise ConfigurationError(f"num_samples {self.num_samples} is too few: an error needs two draws or more")
        if self.max_length < 1:
            raise ConfigurationError(f"max_length {self.max_length} is not a number of tokens to read")


def room_of(max_length: int, chunk_size: int) -> int:
    """``max_length`` in whole chunks, two at least."""
    return max(2, max_length // chunk_size) * chunk_size


def split_tokens(encode: Callable[[str], list[int]], context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a context and of its continuation; space at the context's end belongs to the continuation."""
    whole = encode(context + continuation)
    if not continuation:
        return whole, []
    before = encode(context.rstrip())
    # A token may reach over the border; then it belongs to the continuation.
    shared = next((index for index, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    return whole[:shared], whole[shared:]


class HarnessReader:
    """Reads prompts, continuations and whole texts for a model of ``chunk_size``."""

    def __init__(self, vocabulary: Vocabulary, chunk_size: int, settings: HarnessSettings) -> None:
        self.shortened: set[str] = set()
        """Contexts of which the beginning was not read."""
        self.bounded: set[str] = set()
        """These, contexts whose answers are shorter than they were asked for, and texts read in several windows: what
        ``max_length`` decides."""
        self._vocabulary = vocabulary
        self._chunk_size = chunk_size
        self._settings = settings
        self._said: set[str] = set()

    def prompt(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The tokens of a prompt that are read, and how many may follow."""
        wanted, size = request.settings.max_tokens, self._chunk_size
        tokens = self._vocabulary.encode(request.context)
        least = min(wanted, max(size, self._room - int(self._room * PROMPT_SHARE)))
        kept = self._last(tokens, least)
        if len(kept) < len(tokens):
            self._shorten(request.context)
            self._say_once(
                f"prompts longer than {self._room - least} tokens lose their beginning (max_length "
                f"{self._settings.max_length}, of which the answer gets {least})"
            )
        room = min(wanted, max(size, self._room - len(kept)))
        if room < wanted:
            self.bounded.add(request.context)
            self._say_once(
                f"answers are shorter than the {wanted} tokens asked for (max_gen_toks) where the prompt leaves less "
                f"of {self._room} (max_length)"
            )
        return kept, room

    def text(self, context: str, continuation: str) -> Text:
        """A continuation after its context; space at the context's end belongs to the continuation.

        Raises:
            EvaluationError: it is longer than ``max_length`` leaves to be read.
        """
        given, asked = split_tokens(self._vocabulary.encode, context, continuation)
        size = self._chunk_size
        if len(asked) > self._room - size:
            raise EvaluationError(
                f"a continuation of {len(asked)} tokens cannot be scored within {self._room} tokens, of which a chunk "
                f"of {size} stands before it: raise max_length ({WHERE_LENGTH})"
            )
        by_continuation = self._settings.alignment == "continuation"
        shortened = self._last(given, len(asked), by_continuation)
        if len(shortened) < len(given):
            self._shorten(context)
        given = shortened
        if by_continuation:
            given = given[len(given) % size :] if len(given) >= size else self._padding(size - len(given)) + given
        elif len(given) < size:
            given = self._padding(size) + given
        return Text((*given, *asked), len(given), context)

    def windows(self, string: str) -> list[Text]:
        """A whole text in windows of ``max_length``: each token is scored once, after at least one chunk, the last
        window after as much as fits."""
        tokens, size = self._vocabulary.encode(string), self._chunk_size
        length = max(size, self._room - size)
        padded = [*self._padding(size), *tokens]
        if len(tokens) > length:
            self.bounded.add(string)
        windows = []
        for begin in range(size, len(padded), length):
            end = min(begin + length, len(padded))
            first = begin - size
            if end == len(padded):
                first = max(0, first - (length - (end - begin)) // size * size)
            windows.append(Text(tuple(padded[first:end]), begin - first, f"{string}\x1frolling\x1f{begin}"))
        return windows

    @property
    def _room(self) -> int:
        """``max_length`` in whole chunks, two at least."""
        return room_of(self._settings.max_length, self._chunk_size)

    def _last(self, tokens: list[int], more: int, at_end: bool = False) -> list[int]:
        """The last ``tokens`` that leave room for ``more``, a chunk of them at least.

        Args:
            at_end: whether chunks are counted from their end; else they stay where they were, if a whole one is left.
        """
        size = self._chunk_size
        most = max(size, self._room - more)
        excess = len(tokens) - most
        if excess <= 0:
            return tokens
        kept = tokens[-most if at_end else -(-excess // size) * size :]
        return kept if len(kept) >= size else tokens[-size:]

    def _shorten(self, context: str) -> None:
        self.shortened.add(context)
        self.bounded.add(context)

    def _padding(self, count: int) -> list[int]:
        return [self._vocabulary.eos_id] * count

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            LOGGER.warning(text)
