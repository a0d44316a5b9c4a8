"""What the stage ``samples`` measures of the texts that a model writes: repetition and diversity beside held-out text,
and what a judge says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.common.numbers import with_error
from pipelines.study.stage_kind import MetricPoint

SHOWN = (("distinct_2", "distinct 2-grams"), ("repeated_4", "4-grams a text holds already"), ("entropy_2", "entropy"))
"""What people are told first, with its words; all of it is in the result and in MLflow."""


def measure_texts(
    written: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]], temperature: float
) -> dict[str, Any] | None:
    """The statistics of continuations and of the held-out ones of the same prompts, cut to the shorter of each two.

    Returns:
        ``temperature``, ``num_texts``, ``num_tokens`` of each side, and ``model`` and ``held_out`` with a value and an
        error by statistic; None where no continuation has a token.
    """
    from evals.free_running import free_running_statistics

    lengths = [min(len(ours), len(theirs)) for ours, theirs in zip(written, held_out, strict=True)]
    if not any(lengths):
        return None
    sides = {"model": written, "held_out": held_out}
    cut = {side: [text[:length] for text, length in zip(texts, lengths, strict=True)] for side, texts in sides.items()}
    return {
        "temperature": temperature,
        "num_texts": sum(length > 0 for length in lengths),
        "num_tokens": sum(lengths),
        **{
            side: {name: asdict(figure) for name, figure in free_running_statistics(texts).items()}
            for side, texts in cut.items()
        },
    }


def judged(folder: Path, texts: Sequence[Mapping[str, Any]], temperature: float, device: str) -> dict[str, Any]:
    """Generative perplexity of the texts at one temperature, by the model of transformers in ``folder``."""
    from evals.judge import judge_texts

    pairs = [(text["prompt"], text["text"]) for text in texts if text["temperature"] == temperature]
    return {"temperature": temperature, **asdict(judge_texts(folder, pairs, device))}


def in_words(statistics: Mapping[str, Any]) -> str:
    """The statistics of one temperature in a line, each beside that of held-out text."""
    parts = []
    for name, words in SHOWN:
        if name in statistics["model"]:
            ours, theirs = (_shown(name, statistics[side][name]) for side in ("model", "held_out"))
            parts.append(f"{words} {ours} (held-out text {theirs})")
    amount = f"{statistics['num_texts']} texts, {statistics['num_tokens']} tokens"
    return f"Temperature {statistics['temperature']:g}, {amount}: {'; '.join(parts)}."


def judgement_in_words(judgement: Mapping[str, Any]) -> str:
    """What the judge says of one temperature, in a line."""
    nats = _number(judgement["log_perplexity"], judgement["log_perplexity_se"])
    return (
        f"Temperature {judgement['temperature']:g}: generative perplexity {judgement['perplexity']:.4g} (its logarithm "
        f"{nats} nats per token of the judge, {judgement['num_texts']} texts)."
    )


def writing_metrics(result: Mapping[str, Any]) -> Iterator[MetricPoint]:
    """All statistics for MLflow, under the temperature; the held-out text's beside them."""
    for found in result.get("statistics", ()):
        for side in ("model", "held_out"):
            for name, figure in found[side].items():
                yield MetricPoint(f"text_T{found['temperature']:g}/{name}_{side}", float(figure["value"]))
    for found in result.get("judgements", ()):
        yield MetricPoint(f"text_T{found['temperature']:g}/log_perplexity_by_judge", float(found["log_perplexity"]))


def _shown(name: str, figure: Mapping[str, Any]) -> str:
    scale, unit = (1.0, " bits") if name.startswith("entropy") else (100.0, " %")
    error = figure["standard_error"]
    return _number(scale * figure["value"], None if error is None else scale * error) + unit


def _number(value: float, error: float | None) -> str:
    return f"{value:.3g}" if error is None else with_error(value, error)
