"""How far two models are apart, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evals.brier import brierlm
from pipelines.common.numbers import interval, with_error
from pipelines.results.wording import CLIPPED

if TYPE_CHECKING:
    from evals.stats import Comparison
    from evals.sums import ScoredSums

Interval = tuple[float, float]


def both_clipped(first: Sequence[ScoredSums], second: Sequence[ScoredSums]) -> bool:
    """Whether every seed of both models has BrierLM 0, so that their difference says nothing."""
    return not any(float(brierlm(scored.sums.means)) for scored in (*first, *second))


def comparison_lines(
    names: tuple[str, str], sides: tuple[Sequence[ScoredSums], Sequence[ScoredSums]], found: Comparison
) -> list[str]:
    """``found``, the difference of the two ``sides`` (seeds of one model each), as lines.

    Where both models are clipped to 0, each Brier-n is judged by itself: they still tell the two apart.
    """
    first, second = names
    one = sides[0][0]
    clipped = both_clipped(*sides)
    if clipped:
        lines = [
            f"{first} and {second} both score {CLIPPED}: BrierLM does not tell them apart, the Brier-n may.",
            f"Brier-n of {first} minus that of {second}:",
        ]
    else:
        lines = [
            f"BrierLM of {first} minus that of {second}: {with_error(found.value, found.standard_error)}",
            f"95 % interval {interval(*found.interval)}, p {_p_value(found.p_value)}: "
            f"{_verdict(found.interval, names)}",
        ]
    numbers = zip(found.components, found.component_errors, found.component_intervals, strict=True)
    for n, (value, error, between) in zip(one.ngram_lengths, numbers, strict=True):
        judged = f": {_verdict(between, names)}" if clipped else ""
        lines.append(f"  Brier-{n}  {with_error(100 * value, 100 * error)}{judged}")
    return [
        *lines,
        f"times 100, ± one standard error over {len(one.sums.counts):,} {one.error_unit}s of "
        f"{int(one.sums.counts.sum()):,} common positions{_over_seeds(found.seed_error, clipped, *map(len, sides))}; "
        f"protocol {one.protocol_hash}",
    ]


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _over_seeds(error: float | None, clipped: bool, first: int, second: int) -> str:
    if error is None:
        return "; one seed each: what other seeds would score is not in the error"
    alone = "; one seed of one of them: what others would score is not in the error" if 1 in (first, second) else ""
    part = "" if clipped else f", ±{error:.2g} of the error"
    return f" and over seeds ({first} and {second}{part}){alone}"


def _verdict(interval: Interval, names: tuple[str, str]) -> str:
    low, high = interval
    if low > 0:
        return f"{names[0]} is better"
    return f"{names[1]} is better" if high < 0 else "the difference may be chance"
