"""Generative perplexity: how likely a second model, the judge, finds text that a model wrote.

A low one says that the text is fluent or that it repeats itself, so the entropy of the text stands beside it
(:mod:`evals.free_running`). It is no likelihood of the model that wrote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.free_running import FEWEST_TEXTS
from evals.protocol import EvaluationError


@dataclass(frozen=True)
class Judgement:
    """What a judge says of several texts together."""

    perplexity: float
    """Per token of the judge, over all texts."""
    log_perplexity: float
    """Its natural logarithm, nats per token of the judge."""
    log_perplexity_se: float | None
    """One standard error of it over texts; None with fewer than three."""
    num_tokens: int
    """Tokens of the judge that were judged."""
    num_texts: int


def judge_texts(folder: Path, pairs: Sequence[tuple[str, str]], device: str = "cpu") -> Judgement:
    """Judge continuations, each after its prompt, by the causal language model of transformers in ``folder``.

    Code that comes with a model is not run. What is longer than the judge's positions is cut at its beginning, so that
    a continuation is judged as a whole after as much of its prompt as fits.

    Args:
        pairs: prompts and what was written after each.

    Raises:
        WeightsError, TokenizerError: the folder holds no model that can be read so.
        EvaluationError: no token can be judged, or a continuation alone is too long.
    """
    from evals.adapters.hugging_face import HuggingFaceSampler

    judge = HuggingFaceSampler.open(folder, device=device)
    tokenizer = judge.tokenizer
    if tokenizer is None:
        raise EvaluationError(f"the judge in {folder} has no tokenizer, so it can read no text")
    sums: list[tuple[float, int]] = []
    for prompt, text in pairs:
        before, written = tokenizer.encode(prompt) or judge.prefix, tokenizer.encode(text)
        if before and written:
            sums.append((_nats(judge.model, before, written, judge.max_positions, device), len(written)))
    if not sums:
        raise EvaluationError("there is no text to judge: all texts or all prompts are empty")
    total, count = sum(nats for nats, _ in sums), sum(length for _, length in sums)
    mean = total / count
    error = None
    if len(sums) >= FEWEST_TEXTS:
        number = len(sums)
        spread = sum((nats - mean * length) ** 2 for nats, length in sums)
        # Of a ratio of two sums over texts (linearised).
        error = math.sqrt(number / (number - 1) * spread) / count
    return Judgement(math.exp(min(mean, 700.0)), mean, error, count, len(sums))


def _nats(model: object, before: list[int], written: list[int], limit: int | None, device: str) -> float:
    """Negative log-likelihood of ``written`` after ``before``."""
    import torch
    from torch.nn import functional as F

    room = len(before) if limit is None else limit - len(written)
    if room < 1:
        raise EvaluationError(
            f"a text has {len(written)} tokens of the judge, which has {limit} positions: lower samples.num_tokens"
        )
    ids = torch.tensor([before[-room:] + written], device=device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, -len(written) - 1 : -1].float()  # type: ignore[operator]
        return float(F.cross_entropy(logits, ids[0, -len(written) :], reduction="sum"))
