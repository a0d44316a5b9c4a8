"""Predictions beyond the measured budgets, in words: always with their interval, and with how often such ones held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.common.numbers import scientific
from pipelines.results.wording import model_name, number

if TYPE_CHECKING:
    from pipelines.results.extrapolation import BackTest, Meeting

FAR = "1000 times the largest budget here"
""":data:`pipelines.results.extrapolation.REACH`, in words."""


def meeting(found: Meeting) -> str:
    """Where two laws would meet, or that they would not."""
    name, base = model_name(found.family), model_name(found.reference)
    if found.compute is None:
        often = f"; in {100 * found.share:.0f} % of the bootstrap's replicates they do" if found.share > 0 else ""
        return f"Extrapolated: the law of {name} does not meet that of {base} within {FAR}{often}."
    low = scientific(found.low) if found.low is not None else f"beyond {FAR}"
    high = scientific(found.high) if found.high is not None else f"beyond {FAR}"
    return (
        f"Extrapolated: by their laws {name} would meet {base} at {scientific(found.compute)} training FLOPs "
        f"[{low} to {high}], {number(found.compute / found.largest)} times the largest budget that was measured."
    )


def back_test(found: BackTest) -> str:
    """How often intervals of such predictions held."""
    if found.predictions == 0:
        return "No family has budgets enough to test such predictions on: that takes four."
    tested = "1 score" if found.predictions == 1 else f"{found.predictions} scores"
    return (
        f"Tested by leaving out the largest budget of each family and predicting it: {found.held} of {tested} lay in "
        "the 95 % interval."
    )
