"""Numbers and labels as text for people."""

from __future__ import annotations

import math

MISSING = "–"  # noqa: RUF001 - a dash is what a table shows where there is nothing


def with_error(value: float, error: float) -> str:
    """``12.34±0.21``: two decimals throughout, so that a column of them can be compared by eye."""
    return f"{value:.2f}±{error:.2f}" if error >= 0.005 or error == 0 else f"{value:.2f}±<0.01"


def share_with_error(share: float, error: float) -> str:
    """``99.95±0.02 %``."""
    return f"{100 * share:.2f}±{100 * error:.2f} %" if error >= 5e-5 else f"{100 * share:.2f}±<0.01 %"


def scientific(number: float) -> str:
    """``1.31e13``: one form at every size, because FLOPs in a column are compared with each other."""
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


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
    """``text`` on one line without control characters, so that a name cannot move the cursor or break a table."""
    return "".join(character if character.isprintable() else "�" for character in " ".join(text.split()))
