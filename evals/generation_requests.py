"""What lm-eval asks of text generation, as settings of our sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calm_bench.registry import did_you_mean
from evals.protocol import EvaluationError

if TYPE_CHECKING:
    from calm_bench.sampling.temperature import Decoding

MAX_TOKENS = 256
"""lm-eval's own default."""
PROMPT_SHARE = 0.75
"""Share of what is read that a long prompt has at most before it loses its beginning; the rest is for the answer."""
GREEDY_TEMPERATURE = 1e-6
"""Temperature of a token model: no two of its logits are closer, so the largest is drawn."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Of several, the first one counts, as in lm-eval."""
_NEUTRAL = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "num_beams": 1, "repetition_penalty": 1.0}
"""Settings that a sampler of whole chunks cannot follow, and what they must be when text is sampled."""
_IGNORED = ("use_cache", "num_return_sequences", "seed")
_KNOWN = ("until", "do_sample", "temperature", *LENGTHS, *_NEUTRAL, *_IGNORED)


@dataclass(frozen=True)
class GenerationSettings:
    """Requests of equal settings are answered together."""

    max_tokens: int
    temperature: float | None
    """None means greedy."""

    def decoding(self, chunks: bool, candidates: int) -> Decoding:
        """The sampler's settings.

        Args:
            chunks: a chunk model's. Its greedy choice is the most frequent of ``candidates`` samples, which is what the
                batch approximation of the temperature 1/N does with N candidates; ties are broken at random.
        """
        from calm_bench.sampling.temperature import Decoding

        if self.temperature is not None:
            return Decoding(self.temperature, "exact")
        if chunks:
            return Decoding(1 / candidates, "batch", candidates)
        return Decoding(GREEDY_TEMPERATURE)


@dataclass(frozen=True)
class GenerationRequest:
    """A text to be continued."""

    context: str
    settings: GenerationSettings
    until: tuple[str, ...]
    """Stop strings; none of them is part of the answer."""

    def is_complete(self, text: str) -> bool:
        """Whether ``text`` holds a stop string."""
        return any(stop in text for stop in self.until)

    def cut(self, text: str) -> str:
        """``text`` up to its first stop string."""
        ends = [offset for stop in self.until if (offset := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


def read_request(context: str, settings: Mapping[str, Any]) -> GenerationRequest:
    """A request of lm-eval: its text and its ``generation_kwargs``.

    Raises:
        EvaluationError: settings that do not exist, or that samples of whole chunks cannot follow.
    """
    for name in settings:
        if name not in _KNOWN:
            raise EvaluationError(f"generation_kwargs has no {name!r}{did_you_mean(name, list(_KNOWN))}")
    stops = _stops(settings.get("until") or ())
    lengths = [_length(name, settings[name]) for name in LENGTHS if settings.get(name) is not None]
    length = next(iter(lengths), MAX_TOKENS)
    temperature = settings.get("temperature") or 0.0
    if not isinstance(temperature, int | float) or isinstance(temperature, bool):
        raise EvaluationError(f"generation_kwargs temperature={temperature!r} is no number")
    do_sample = settings.get("do_sample")
    if not isinstance(do_sample, bool | None):
        raise EvaluationError(f"generation_kwargs do_sample={do_sample!r} is neither true nor false: write it so")
    sampled = temperature > 0 if do_sample is None else do_sample
    if sampled and "temperature" not in settings:
        temperature = 1.0
    if not sampled or temperature == 0:
        return GenerationRequest(context, GenerationSettings(length, None), stops)
    for name, neutral in _NEUTRAL.items():
        if settings.get(name, neutral) not in (neutral, None):
            raise EvaluationError(
                f"generation_kwargs {name}={settings[name]} cannot be followed by drawing whole chunks: leave it "
                f"out, or set {name}={neutral}"
            )
    if not 0 < temperature <= 1:
        raise EvaluationError(
            f"temperature {temperature} is not in (0, 1]: samples can be made more certain, not less (or 0 for greedy)"
        )
    return GenerationRequest(context, GenerationSettings(length, temperature), stops)


def _stops(until: Any) -> tuple[str, ...]:
    """Stop strings; an empty one, which every text holds, ends nothing, as in lm-eval."""
    stops = (until,) if isinstance(until, str) else tuple(until) if isinstance(until, list | tuple) else (until,)
    for stop in stops:
        if not isinstance(stop, str):
            raise EvaluationError(f"generation_kwargs until={until!r}: {stop!r} is no text: put it into quotes")
    return tuple(stop for stop in stops if stop)


def _length(name: str, value: Any) -> int:
    try:
        length = int(value)
    except (TypeError, ValueError, OverflowError):
        length = 0
    is_whole = not isinstance(value, bool) and (isinstance(value, str) or value == length)
    if length < 1 or not is_whole:
        wrong = "lets nothing be written" if is_whole or length < 1 else "is no whole number"
        raise EvaluationError(
            f"generation_kwargs {name}={value!r} {wrong}: give 1 or more, or leave it out for {MAX_TOKENS}"
        )
    return length
