"""The picture of the leaderboard: BrierLM against what training and generating cost, with the Pareto front."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.overrides import ConfigurationError
from pipelines.common.canvas import FAINT, INK, MARKERS, PALETTE, canvas, quiet, write
from pipelines.common.numbers import printable
from pipelines.report.label_places import separate
from pipelines.report.log_marks import flops_label, log_marks
from pipelines.report.pgf import write_pgf
from pipelines.results.error_unit import errors_over
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.looks import Family, Key, key_of, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from pipelines.results.entry import Entry
    from pipelines.results.leaderboard import Cost

Looks = Mapping[Key, Family]

LONG = 8
"""Lines up to which a legend finds room between points."""
LEGEND_INCHES = 1.8
"""Width of a longer one."""
LABELLED = 8
"""Up to this many points carry their label; beyond, the legend alone tells the families apart."""


PANEL_INCHES = 4.5
"""Width from which a picture of a given size has room for both panels."""
SMALL = 7.0
"""Points of the text in a picture of a given size, as captions of papers have them."""
BESIDE = 40.0
"""Points of a panel's width that its axis leaves to the numbers and the label of the other one."""
Size = tuple[float, float]


def parse_size(text: str) -> Size:
    """Width and height in inches, as in ``3.3x2.4``.

    Raises:
        ConfigurationError: it is something else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", text.strip())
    if found is None or not all(1 <= float(part) <= 40 for part in found.groups()):
        raise ConfigurationError(f"--size {text}: width and height in inches, 1 to 40 each, as in 3.3x2.4")
    return float(found[1]), float(found[2])


def draw(leaderboard: Leaderboard, path: Path, file_format: str | None = None, size: Size | None = None) -> None:
    """Write the picture to ``path`` as ``file_format`` (``png``, ``svg``, ``pdf``, ``pgf``; unset: by the suffix).

    Args:
        size: as of :func:`picture`.

    Raises:
        ConfigurationError: a picture for a paper of rows of several protocols, or a ``pgf`` without TeX.
        ValueError: the leaderboard is empty.
    """
    with picture(leaderboard, size) as figure:
        if (file_format or path.suffix.lstrip(".")) == "pgf":
            write_pgf(figure, path)
        else:
            write(figure, path, file_format)


@contextmanager
def picture(leaderboard: Leaderboard, size: Size | None = None) -> Iterator[Figure]:
    """The picture of a leaderboard, to be written in one format or several.

    One row of two panels a protocol, because scores of different protocols share no axis. Left: all training FLOPs,
    with a thin line to the language model's own share where there is an autoencoder. Right: inference FLOPs per
    token. Error bars are one standard error.

    Args:
        size: width and height in inches of a picture for a paper, whose caption says what title and footnote say here:
            both are left out. Below :data:`PANEL_INCHES` it has the left panel alone.

    Raises:
        ConfigurationError: a picture of a given size of rows of several protocols.
        ValueError: the leaderboard is empty.
    """
    if not leaderboard.groups:
        raise ValueError("an empty leaderboard has no picture")
    if size is not None:
        with _for_a_paper(leaderboard, size) as figure:
            yield figure
        return
    rows, looks = len(leaderboard.groups), looks_of(leaderboard)
    width = 11.0
    with canvas(width, 4.7 * rows) as figure:
        panels = figure.subfigures(rows, 1, squeeze=False)
        for panel, group in zip(panels[:, 0], leaderboard.groups, strict=True):
            left, right = panel.subplots(1, 2, sharey=True)
            handles = _handles(group, looks)
            inches = (width - LEGEND_INCHES * (len(handles) > LONG)) / 2
            training = "training FLOPs (language model and autoencoder)"
            _panel(left, group, looks, "total_training_flops", training, inches)
            modes = " or ".join(sorted({printable(entry.decode_mode) for entry in group.entries}))
            inference = f"inference FLOPs per token ({modes})"
            _panel(right, group, looks, "inference_flops_per_token", inference, inches)
            left.set_ylabel("BrierLM (higher is better)", color=INK)
            studies = ", ".join(sorted({printable(entry.study) for entry in group.entries}))
            panel.suptitle(
                f"{studies}: score against compute", x=0.01, ha="left", fontsize=13, weight="bold", color=INK
            )
            panel.supxlabel(_caption(group), x=0.01, ha="left", fontsize=8, color="#666666")
            _legend(left, handles)
        _settle(figure)
        yield figure


def _settle(figure: Figure) -> None:
    """Lay the picture out, once and not for each format again, which is half the work; then place its labels."""
    from matplotlib.text import Annotation

    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    for axes in figure.get_axes():
        separate(axes, [text for text in axes.texts if isinstance(text, Annotation)])


@contextmanager
def _for_a_paper(leaderboard: Leaderboard, size: Size) -> Iterator[Figure]:
    if len(leaderboard.groups) > 1:
        choices = " or ".join(f"--filter protocol={group.protocol_hash}" for group in leaderboard.groups)
        raise ConfigurationError(
            f"--size draws the rows of one protocol, and these have several: choose one ({choices})"
        )
    (group,), looks = leaderboard.groups, looks_of(leaderboard)
    with canvas(*size, font_size=SMALL) as figure:
        panels = figure.subplots(1, 2 if size[0] >= PANEL_INCHES else 1, sharey=True, squeeze=False)[0]
        inches = size[0] / len(panels)
        _panel(panels[0], group, looks, "total_training_flops", "training FLOPs", inches, SMALL)
        if len(panels) > 1:
            _panel(panels[1], group, looks, "inference_flops_per_token", "inference FLOPs per token", inches, SMALL)
        panels[0].set_ylabel("BrierLM", color=INK)
        _legend(panels[0], _handles(group, looks, is_small=True), SMALL)
        _settle(figure)
        yield figure


def _panel(
    axes: Axes, group: Group, looks: Looks, cost: Cost, label: str, inches: float, font_size: float = 9.5
) -> None:
    """One of the pictures of a protocol.

    Args:
        label: of the horizontal axis.
        inches: width of the panel.
        font_size: points of the points' labels.
    """
    import matplotlib
    from matplotlib.ticker import FixedLocator, NullFormatter

    axes.set_xscale("log")
    quiet(axes, label)
    # A log axis without a price at zero, or none at all.
    entries = [entry for entry in group.entries if (getattr(entry, cost) or 0) > 0]
    front = [entry for entry in group.front(cost) if getattr(entry, cost) > 0]
    axes.plot(
        [getattr(entry, cost) for entry in front],
        [entry.brierlm for entry in front],
        color=FAINT,
        linewidth=1.4,
        linestyle=(0, (4, 2)),
        zorder=1,
    )
    # A family at a time: thousands of rows would be thousands of lines, which take minutes to draw. The best comes
    # last, and lies over what it covers.
    for key in reversed(dict.fromkeys(map(key_of, entries))):
        rows = [entry for entry in entries if key_of(entry) == key]
        colour, marker = PALETTE[looks[key].colour], MARKERS[looks[key].marker]
        with_more = [
            (row.compute.training, row.compute.total, row.brierlm)
            for row in rows
            if row.compute is not None and 0 < row.compute.training < row.compute.total
        ]
        if cost == "total_training_flops" and with_more:
            own, totals, scores = (list(column) for column in zip(*with_more, strict=True))
            axes.hlines(scores, own, totals, colors=colour, alpha=0.45, linewidth=1.2, zorder=2)
            axes.plot(own, scores, color=colour, alpha=0.45, linestyle="", marker="|", zorder=2)
        axes.errorbar(
            [getattr(row, cost) for row in rows],
            [row.brierlm for row in rows],
            yerr=[row.brierlm_se for row in rows],
            color=colour,
            linestyle="",
            marker=marker,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=1.5,
            capsize=4,
            zorder=3,
        )
    _limits(axes, entries, cost)
    low, high = axes.get_xlim()
    marks = log_marks(low, high, inches * 72 - BESIDE, matplotlib.rcParams["font.size"])
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_major_formatter(flops_label)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(entries) <= LABELLED:
        for entry in entries:
            _annotate(axes, entry, cost, font_size)


def _limits(axes: Axes, entries: list[Entry], cost: Cost) -> None:
    """Room for labels at the right, and a scale from zero, so that heights compare as scores do."""
    prices = [getattr(entry, cost) for entry in entries]
    if cost == "total_training_flops":
        prices += [entry.training_flops for entry in entries if entry.training_flops]
    low, high = min(prices, default=1.0), max(prices, default=10.0)
    span = max(high / low, 4.0)
    axes.set_xlim(low / span**0.12, high * span**0.22)
    top = max((entry.brierlm + entry.brierlm_se for entry in entries), default=0.0)
    # A little below zero, where the score of a model that has learnt nothing would lie on the frame.
    axes.set_ylim(-0.04 * (top or 1.0), 1.1 * (top or 1.0))


def _annotate(axes: Axes, entry: Entry, cost: Cost, font_size: float) -> None:
    label = printable(entry.label)
    is_low = entry.brierlm < 0.06 * axes.get_ylim()[1]
    axes.annotate(
        label if len(label) <= 24 else label[:23] + "…",
        (getattr(entry, cost), entry.brierlm),
        # Below and to the right: a front rises to the right, so its line passes above. But not below the axis. Where
        # another label is there, it moves.
        xytext=(6, 5) if is_low else (8, -11),
        textcoords="offset points",
        fontsize=font_size,
        color=INK,
        zorder=4,
    )


def _legend(axes: Axes, handles: Sequence[Line2D], font_size: float = 9) -> None:
    """In the upper left corner if it has one line, which is empty: nothing scores high for little. Else where there is
    room; a long one stands beside the panels, since it would cover points."""
    style: dict[str, Any] = {"frameon": False, "fontsize": font_size, "labelcolor": INK}
    if len(handles) > LONG and (figure := axes.get_figure()) is not None and font_size != SMALL:
        figure.legend(handles=handles, loc="outside right upper", **style)
    else:
        is_short = len(handles) == 1 and font_size != SMALL
        axes.legend(handles=handles, loc="upper left" if is_short else "best", **style)


def _handles(group: Group, looks: Looks, is_small: bool = False) -> list[Line2D]:
    """Lines of the legend: the front, and the families where labels of points do not say them.

    Args:
        is_small: small print, in which points that all have a label need no families beside them.
    """
    from matplotlib.lines import Line2D

    entries = group.entries
    handles = [Line2D([], [], color=FAINT, linestyle=(0, (4, 2)), label="Pareto front")]
    says_more = any(entry.label != looks[key_of(entry)].name for entry in entries) and not is_small
    if len(entries) > LABELLED or says_more:
        there = set(map(key_of, entries))
        for look in (look for key, look in looks.items() if key in there):
            colour, marker = PALETTE[look.colour], MARKERS[look.marker]
            handles.append(
                Line2D([], [], color=colour, marker=marker, linestyle="", markeredgecolor="white", label=look.name)
            )
    return handles


def _caption(group: Group) -> str:
    positions = max(entry.num_positions for entry in group.entries)
    documents = max(entry.num_documents for entry in group.entries)
    counted = f"{documents:,} documents, {positions:,} positions"
    return (
        f"Bars: one standard error over {errors_over(group.entries)} ({counted}). Thin line on the left: from the "
        f"language model's own FLOPs to those with its autoencoder.\nProtocol {group.protocol_hash}."
    )
