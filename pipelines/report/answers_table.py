"""The headline's answers as a table: what each family needs for the same score, and its score at equal training."""

from __future__ import annotations

from typing import Any

from pipelines.common.numbers import MISSING, short, signed_with_error, typeset
from pipelines.results.answers import Difference, Headline, Ratio

Cell = tuple[str, str]
"""What is said, and the interval behind it."""
_EXACT = 1e-9
"""Width of an interval below which it is none: inference FLOPs are counted, not measured."""


def answers_table(headline: Headline) -> dict[str, Any] | None:
    """``reference`` and ``rows``, each with its ``family`` and ``cells``; None where there is nothing to tell."""
    answers = [answer for answer in headline.answers if answer.training or answer.total or answer.inference]
    differences = {difference.family: difference for difference in headline.differences}
    if not answers and not differences:
        return None
    first = answers[0] if answers else headline.differences[0]
    rows = []
    for answer in answers:
        score = MISSING if answer.score is None else short(answer.score)
        ratios = [_ratio(ratio) for ratio in (answer.training, answer.total, answer.inference)]
        # A family may be compared at several scores; its difference is told once.
        rows.append(_row(answer.family, score, ratios, differences.pop(answer.family, None)))
    for family, difference in differences.items():
        rows.append(_row(family, MISSING, [_ratio(None)] * 3, difference))
    return {"reference": first.reference, "rows": rows}


def _row(family: str, score: str, ratios: list[Cell], difference: Difference | None) -> dict[str, Any]:
    gap = ""
    if difference is not None:
        gap = typeset(signed_with_error(difference.score_difference, difference.standard_error)).replace("-", "−")  # noqa: RUF001
    return {"family": family, "cells": [(score, ""), *ratios, (gap, "")]}


def _ratio(found: Ratio | None) -> Cell:
    """``4.69×`` and `` [3.71, 5.99]``, or the bound that is known."""  # noqa: RUF002
    if found is None:
        return MISSING, ""
    if found.value is not None:
        if found.high is not None and abs(found.high - found.low) < _EXACT:
            return _times(found.value), ""
        return _times(found.value), f" [{short(found.low)}, {'∞' if found.high is None else short(found.high)}]"
    if found.high is not None:
        return f"< {_times(found.high)}", ""
    return (f"> {_times(found.low)}", "") if found.low > 0 else (MISSING, "")


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 100 else f"{short(ratio)}×"  # noqa: RUF001
