"""Names and ratios as the headline's sentences write them."""

from __future__ import annotations

from pipelines.common.numbers import printable, short
from pipelines.results.answers import Ratio

CLIPPED = "0 (clipped: one of the four Brier-n is not positive)"


def model_name(family: str) -> str:
    """``token`` -> ``the token model``."""
    return "the token model" if family == "token" else printable(family)


def number(value: float) -> str:
    """A ratio with two digits after the point, or three in all; two of a small one."""
    return short(value) if value < 9.995 else f"{value:.3g}"


def times(ratio: Ratio) -> str:
    """``4.36 times [3.60 to 5.45]``, or the bound that is known."""
    bounds = []
    if ratio.value is None:
        if ratio.low > 0:
            bounds.append(f"more than {number(ratio.low)} times")
        if ratio.high is not None:
            bounds.append(f"less than {number(ratio.high)} times")
        return " and ".join(bounds) or "an unknown multiple of"
    if ratio.low == ratio.high:
        return f"{number(ratio.value)} times"
    if ratio.high is None:
        interval = f"at least {number(ratio.low)}, no upper bound"
    elif ratio.low == 0:
        interval = f"at most {number(ratio.high)}, no lower bound"
    else:
        interval = f"{number(ratio.low)} to {number(ratio.high)}"
    return f"{number(ratio.value)} times [{interval}]"


def start(text: str) -> str:
    """``text`` as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
