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

    A label whose place is free stays there; of labels above each other the higher is that of the higher point. The axes
    must have their final size; labels are offset in points.
    """
    figure: Any = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    half = MARKER * figure.dpi / 72.0
    taken = [_around(axes.transData.transform(label.xy), half) for label in labels]
    if (legend := axes.get_legend()) is not None:
        taken.append(legend.get_window_extent(renderer))
    frame = axes.get_window_extent(renderer)
    lower: list[Bbox] = []
    for label in sorted(labels, key=lambda each: float(axes.transData.transform(each.xy)[1])):
        places = [(*label.xyann, label.get_horizontalalignment()), *PLACES]
        covered = []
        for place in places:
            _move(label, *place)
            box = label.get_window_extent(renderer)
            out_of_order = box.width * box.height if any(_is_below(box, other) for other in lower) else 0.0
            covered.append(_outside(box, frame) + out_of_order + sum(_shared(box, other) for other in taken))
            if not covered[-1]:
                break
        _move(label, *places[covered.index(min(covered))])
        lower.append(label.get_window_extent(renderer))
        taken.append(lower[-1])


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


def _is_below(one: Bbox, other: Bbox) -> bool:
    """Whether a box stands below another, as far as one looks up from it to that."""
    return bool(min(one.x1, other.x1) > max(one.x0, other.x0) and one.y0 + one.y1 < other.y0 + other.y1)


def _outside(box: Bbox, frame: Bbox) -> float:
    """Area of a box that lies outside of the frame: a label that is cut off is worse than one that is covered."""
    return 4.0 * max(0.0, box.width * box.height - _shared(box, frame))
