"""Marks of a logarithmic axis of FLOPs: round numbers, as many as their labels leave room for, within a decade too."""

from __future__ import annotations

import math

STEPS: tuple[tuple[float, ...], ...] = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4, 2.6, 2.8, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5),
    (1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 4, 6),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)
"""Marks of a decade, the finest first."""
APART = 0.45
"""Space between two labels, in units of the font's size."""


def log_marks(low: float, high: float, points: float, font_size: float) -> list[float]:
    """Round numbers between ``low`` and ``high``, the most whose labels do not touch.

    A locator of matplotlib's would leave all but powers of ten without a label, or repeat linear marks.

    Args:
        low: above 0, as ``high``, which is larger.
        points: length of the axis.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    per_decade = points / math.log10(high / low)
    marks: list[float] = []
    for steps in STEPS:
        marks = [step * 10.0**decade for decade in decades for step in steps]
        marks = [mark for mark in marks if low <= mark <= high]
        if _fit(marks, per_decade, font_size):
            return marks
    # Many decades: every second one, every third, until they fit.
    every = 2
    while not _fit(marks[::every], per_decade, font_size):
        every += 1
    return marks[::every]


def flops_label(value: float, _position: float = 0.0) -> str:
    """``2·10¹³``, ``1.5·10¹³``, ``10¹³``: what matplotlib writes at a mark."""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = f"{value / 10.0**exponent:g}"
    raised = str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


def _fit(marks: list[float], per_decade: float, font_size: float) -> bool:
    """Whether labels of neighbours leave space between them.

    Args:
        per_decade: points.
    """
    from matplotlib.textpath import TextPath

    widths = [TextPath((0, 0), flops_label(mark), size=font_size).get_extents().width for mark in marks]
    places = [math.log10(mark) * per_decade for mark in marks]
    return all(
        places[i + 1] - places[i] >= (widths[i] + widths[i + 1]) / 2 + APART * font_size for i in range(len(marks) - 1)
    )
