"""Numbers and labels as text for people."""

from __future__ import annotations

import math
import re

from pipelines.common.sanitize import JOINERS

MISSING = "–"  # noqa: RUF001 - a dash is what a table shows where there is nothing

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


PLUS_MINUS = "±"
ROUNDING = 1e-15
"""Relative errors below this are those of floating point."""
ERROR_DIGITS = 2
"""Significant digits of an error; its value has as many decimals."""


def with_error(value: float, error: float) -> str:
    """``12.34±0.21``, ``0.0043±0.0012``, ``4.5±1.2``, ``1230±120``: two significant digits of the error, and the value
    to match.

    An error of 0, or of rounding alone, says nothing about digits: the value has two decimals, or two significant
    digits where it is small.
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:.4g}{PLUS_MINUS}{error:.2g}"
    if error == 0 or abs(error) < ROUNDING * abs(value):
        return f"{value:.2f}{PLUS_MINUS}0" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}{PLUS_MINUS}0"
    # 0.0996 has two digits as 0.10, not as 0.100: the exponent is that of the rounded error.
    exponent = int(f"{abs(error):.{ERROR_DIGITS - 1}e}".partition("e")[2])
    decimals = ERROR_DIGITS - 1 - exponent
    return f"{_rounded(value, decimals)}{PLUS_MINUS}{_rounded(error, decimals)}"


def signed_with_error(value: float, error: float) -> str:
    """``+1.23±0.21``: a difference."""
    text = with_error(value, error)
    return text if text.startswith("-") else f"+{text}"


def clipped_with_error(value: float, error: float) -> str:
    """:func:`with_error` of a score that cannot be below 0: ``0 (clipped)`` where it is there."""
    if value != 0:
        return with_error(value, error)
    return "0 (clipped)" if error == 0 else f"{with_error(value, error)} (clipped)"


def share_with_error(share: float, error: float) -> str:
    """``99.954±0.021 %``: :func:`with_error` in percent."""
    return f"{with_error(100 * share, 100 * error)} %"


def _rounded(value: float, decimals: int) -> str:
    """``value`` to so many decimals, to tens where they are -1; never ``-0``."""
    # Of a number too small to be seen at all, rounding leaves a zero that may be negative.
    return f"{round(value, decimals) + 0.0:.{max(0, decimals)}f}"


def short(value: float, decimals: int = 2) -> str:
    """``3.14``, ``0.0043``: so many decimals, but never fewer than two significant digits."""
    is_small = abs(round(value, decimals)) < 10.0 ** (1 - decimals)
    return f"{value:.2g}" if is_small and value else f"{value:.{decimals}f}"


def interval(low: float, high: float, decimals: int = 2, signed: bool = False) -> str:
    """``-2.40 to 0.86``, ``-0.0093 to -0.0031``: so many decimals, more where two digits of the width take them."""
    sign, width = "+" if signed else "", abs(high - low)
    if not math.isfinite(width) or width == 0:
        return f"{low:{sign}.3g} to {high:{sign}.3g}"
    decimals = max(decimals, ERROR_DIGITS - 1 - int(f"{width:.{ERROR_DIGITS - 1}e}".partition("e")[2]))
    # Rounding may leave a zero that is negative.
    return " to ".join(f"{round(end, decimals) + 0.0:{sign}.{decimals}f}" for end in (low, high))


def scientific(number: float) -> str:
    """``1.31e13``: one form at every size, because FLOPs in a column are compared with each other."""
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def typeset(text: str) -> str:
    """A number as a page prints it: exponents raised (``1.31e13``), spaces around ± and before a % sign."""
    text = re.sub(r"e(-?\d+)\b", lambda match: "×10" + match[1].translate(_RAISED), text)  # noqa: RUF001
    return re.sub(r"(?<=\d)%", " %", text.replace("±", " ± "))


def compact(number: float) -> str:
    """``281M``, ``12.3k``: three digits and a suffix."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            scaled = number / size
            # 9.996 has three digits as 10.0, not as 10.00.
            digits = max(0, 2 - math.floor(math.log10(abs(scaled) * 1.0005)))
            return f"{scaled:.{digits}f}{suffix}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """``8 s``, ``2:05`` (minutes), ``3:20:00`` (hours)."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def floored_percent(share: float | None) -> str:
    """``99.98%``, rounded down: 100 means all of them."""
    return MISSING if share is None else f"{math.floor(share * 10_000 + 1e-9) / 100:.2f}%"


def printable(text: str) -> str:
    """``text`` on one line without control characters, so that a name cannot move the cursor or break a table.

    Joiners stay: they are part of words in many scripts, and of signs.
    """
    kept = (
        character if character.isprintable() or character in JOINERS else "�" for character in " ".join(text.split())
    )
    return "".join(kept)
