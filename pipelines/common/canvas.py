"""What all pictures share: colours that are told apart, a quiet frame, files that are the same for the same numbers."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import write_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
FAINT = "#9a9a9a"
PALETTE = ("#000000", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's: told apart with any of the common colour-vision deficiencies."""
MARKERS = ("s", "^", "D", "o", "v", "P", "X")
"""One for each colour, for those who see no colours."""


BACKEND = "MPLBACKEND"


@contextmanager
def canvas(width: float, height: float, font_size: float = 10) -> Iterator[Figure]:
    """An empty figure of that size in inches; text in it is never read as formulas.

    Args:
        font_size: points. PDF holds fonts as TrueType, which publishers take and editors can change.
    """
    _import_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps global state and would choose a window system. Salt: the same rows give the same SVG.
    settings: dict[Any, Any] = {
        "svg.hashsalt": "calm-bench",
        "font.size": font_size,
        "pdf.fonttype": 42,
        "axes.edgecolor": FAINT,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def _import_matplotlib() -> None:
    """Import matplotlib whatever ``MPLBACKEND`` says: each notebook exports one that other environments lack.

    Nothing here uses the backend. Where it is one that this environment has, it stays what the process uses elsewhere.
    """
    if "matplotlib" in sys.modules:
        return
    wanted = os.environ.get(BACKEND)
    os.environ[BACKEND] = "agg"
    try:
        import matplotlib
    finally:
        os.environ.pop(BACKEND)
        if wanted is not None:
            os.environ[BACKEND] = wanted
    if wanted:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted


def write(figure: Figure, path: Path, file_format: str | None = None) -> None:
    """Save as ``file_format`` (``png``, ``svg``, ``pdf``; unset: by the path's suffix), without a date.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    kind = file_format or path.suffix.lstrip(".").lower() or "png"
    date = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
    metadata = None if date is None else {date: None}
    write_with(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=160, metadata=metadata))


def warm_up() -> None:
    """Draw something small to nowhere: the first picture of a process takes a second of imports and fonts.

    Where drawing fails, the first real picture says so.
    """
    with suppress(Exception), canvas(1, 1) as figure:
        figure.subplots().set_title("K")
        for file_format in ("png", "svg"):
            figure.savefig(io.BytesIO(), format=file_format)


def quiet(axes: Axes, label: str, grid: Any = "both") -> None:
    """A grid behind the data, no frame at the top and at the right, and a label below."""
    axes.set_xlabel(label, color=INK)
    axes.grid(True, which="major", axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, which="both")
