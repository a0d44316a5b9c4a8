"""How far two models are apart, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evals.brier import brierlm
from pipelines.common.numbers import with_error
from pipelines.results.wording import CLIPPED

if TYPE_CHECKING:
    from evals.stats import Comparison
    from evals.sums import ScoredSums

Interval = tuple[float, float]
NORMAL_95 = 1.96
"""Standard errors in half a 95 % interval of a normal variable."""


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
            f"95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f}, p {_p_value(found.p_value)}: "
            f"{_verdict(found.interval, names)}",
        ]
    for n, value, error in zip(one.ngram_lengths, found.components, found.component_errors, strict=True):
        interval = (value - NORMAL_95 * error, value + NORMAL_95 * error)
        judged = f": {_verdict(interval, names)}" if clipped else ""
        lines.append(f"  Brier-{n}  {with_error(100 * value, 100 * error)}{judged}")
    return [
        *lines,
        f"times 100, ± one standard error over {len(one.sums.counts):,} {one.error_unit}s of "
        f"{int(one.sums.counts.sum()):,} common positions{_over_seeds(found.seed_error, *map(len, sides))}; "
        f"protocol {one.protocol_hash}",
    ]


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _over_seeds(error: float | None, first: int, second: int) -> str:
    if error is None:
        return "; one seed each: what other seeds would score is not in the error"
    alone = "; one seed of one of them: what others would score is not in the error" if 1 in (first, second) else ""
    return f" and over seeds ({first} and {second}, ±{error:.2g} of the error){alone}"


def _verdict(interval: Interval, names: tuple[str, str]) -> str:
    low, high = interval
    if low > 0:
        return f"{names[0]} is better"
    return f"{names[1]} is better" if high < 0 else "the difference may be chance"
