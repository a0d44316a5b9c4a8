"""The picture of a context sweep: BrierLM against tokens of left context."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.common.canvas import INK, MARKERS, PALETTE, canvas, quiet, write
from pipelines.common.numbers import printable

if TYPE_CHECKING:
    from evals.context_sweep import ContextSweep


def draw_sweeps(sweeps: Mapping[str, ContextSweep], path: Path, file_format: str | None = None) -> None:
    """A line per model; bars are one standard error over documents. Equal targets at every length."""
    from matplotlib.ticker import FixedLocator, NullLocator

    with canvas(7, 4.4) as figure:
        axes = figure.subplots()
        axes.set_xscale("log", base=2)
        quiet(axes, "tokens of left context")
        axes.set_ylabel("BrierLM (higher is better)", color=INK)
        for index, (name, sweep) in enumerate(sweeps.items()):
            style = index % len(PALETTE)
            axes.errorbar(
                [point.context_length for point in sweep.points],
                [point.brierlm for point in sweep.points],
                yerr=[point.brierlm_se for point in sweep.points],
                color=PALETTE[style],
                marker=MARKERS[style],
                markersize=6,
                capsize=3,
                label=printable(name),
            )
        lengths = sorted({point.context_length for sweep in sweeps.values() for point in sweep.points})
        axes.xaxis.set_major_locator(FixedLocator(lengths))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, labelcolor=INK)
        figure.suptitle("Score against context", x=0.01, ha="left", fontsize=13, weight="bold", color=INK)
        write(figure, path, file_format)
