"""A picture as ``.pgf``: drawing commands that LaTeX sets in the fonts of the document that inputs them."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import write_bytes
from calm_bench.overrides import ConfigurationError
from pipelines.report.latex import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEX_SYSTEMS = ("xelatex", "lualatex", "pdflatex")
"""What measures text, the first of them that is there."""
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")


def write_pgf(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path``, for documents with the package pgf. Its texts are written for TeX from then on.

    Raises:
        ConfigurationError: no TeX is here to measure text, or it cannot.
    """
    import matplotlib
    from matplotlib.backends.backend_pgf import LatexError

    system = next((name for name in TEX_SYSTEMS if shutil.which(name)), None)
    if system is None:
        raise ConfigurationError(
            f"{path}: a .pgf is measured by {', '.join(TEX_SYSTEMS[:-1])} or {TEX_SYSTEMS[-1]}, and none is here; "
            ".pdf needs none"
        )
    # With fonts of matplotlib's own, the file would name them by their paths on this machine.
    settings: dict[Any, Any] = {"pgf.texsystem": system, "pgf.rcfonts": False}
    written = io.StringIO()
    _escape_texts(figure)
    with matplotlib.rc_context(settings):
        try:
            figure.savefig(written, format="pgf")
        except (LatexError, ValueError) as error:
            # A document that cannot begin, and a text that it cannot set.
            raise ConfigurationError(
                f"{path}: {system} cannot measure the text of a .pgf ({_complaint(error)}); install what it misses "
                "(Debian: texlive-pictures), or write .pdf, which needs no TeX"
            ) from error
    write_bytes(path, written.getvalue().encode())


def _escape_texts(figure: Figure) -> None:
    """Make all texts such as TeX prints: matplotlib hands them to it as they are, and labels are no code."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FixedLocator

    for axes in figure.get_axes():
        for axis in (axes.xaxis, axes.yaxis):
            # Marks are given their text anew whenever they are drawn.
            marks = [float(mark) for mark in axis.get_majorticklocs()]
            labels = axis.get_major_formatter().format_ticks(marks)
            axis.set_major_locator(FixedLocator(marks))
            axis.set_major_formatter(FixedFormatter([_for_tex(label) for label in labels]))
    for text in figure.findobj(Text):
        text.set_text(_for_tex(text.get_text()))


def _for_tex(text: str) -> str:
    raised = _RAISED.sub(lambda found: f"\\textsuperscript{{{found[0].translate(_SUPERSCRIPTS)}}}", escape(text))
    return raised.replace("·", r"\ensuremath{\cdot}").replace("…", r"\ldots{}")


def _complaint(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.startswith("!")]
    return lines[0].lstrip("! ") if lines else str(error).splitlines()[0]
