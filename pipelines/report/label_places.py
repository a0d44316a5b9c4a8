"""Places for the labels of points, so that none covers another, a point, or the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

PLACES = (
    (8, 5, "left"),
    (-8, -11, "right"),
    (-8, 5, "right"),
    (0, 9, "center"),
    (0, -17, "center"),
    (8, -21, "left"),
    (8, 15, "left"),
    (-8, -21, "right"),
    (-8, 15, "right"),
)
"""Points to the right and upwards from a point, and the side of the label that stands there; tried in this order where
the label's own place is taken."""
MARKER = 4.5
"""Points from the middle of a marker to its edge."""


def separate(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move each of ``labels`` that covers something to the place where it covers least.

    A label whose place is free stays there. The axes must have their final size; labels are offset in points.
    """
    figure: Any = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    half = MARKER * figure.dpi / 72.0
    taken = [_around(axes.transData.transform(label.xy), half) for label in labels]
    if (legend := axes.get_legend()) is not None:
        taken.append(legend.get_window_extent(renderer))
    frame = axes.get_window_extent(renderer)
    for label in labels:
        places = [(*label.xyann, label.get_horizontalalignment()), *PLACES]
        covered = []
        for place in places:
            _move(label, *place)
            box = label.get_window_extent(renderer)
            covered.append(_outside(box, frame) + sum(_shared(box, other) for other in taken))
            if not covered[-1]:
                break
        _move(label, *places[covered.index(min(covered))])
        taken.append(label.get_window_extent(renderer))


def _move(label: Annotation, right: float, up: float, side: Any) -> None:
    label.xyann = (right, up)
    label.set_horizontalalignment(side)


def _around(point: Any, half: float) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = point
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _shared(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _outside(box: Bbox, frame: Bbox) -> float:
    """Area of a box that lies outside of the frame: a label that is cut off is worse than one that is covered."""
    return 4.0 * max(0.0, box.width * box.height - _shared(box, frame))
