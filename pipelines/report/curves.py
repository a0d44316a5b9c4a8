"""Training logs, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipelines.report.data import Curve, Number, TrainingCurves
from pipelines.store.metrics_log import Line, read_lines
from pipelines.store.refs import StageRef

MOST_POINTS = 240
"""Points of one training, where few are shown."""
FEWEST_POINTS = 40
ALL_POINTS = 24_000
"""Points of all trainings on a page together."""
SKIPPED = frozenset({"learning_rate", "grad_norm_head", "grad_norm_backbone", "plateau"})
"""Terms that the page does not draw."""
_DIGITS = 5


def points_for(num_trainings: int) -> int:
    """Points that each of so many trainings may have."""
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, num_trainings)))


def curves_of(ref: StageRef, folder: Path, limit: int, label: str = "") -> TrainingCurves | None:
    """The log of the finished training ``ref`` in ``folder``, at most ``limit`` points a split; None where it has none.

    Args:
        label: its own, where that of its row does not tell which it is.
    """
    lines = read_lines(ref.kind, folder)
    train = [line for line in lines if line.split == "train"]
    validation = [line for line in lines if line.split == "validation"]
    if not train and not validation:
        return None
    return TrainingCurves(ref.kind, ref.identity, label, _curve(train, limit), _curve(validation, limit), len(train))


def _curve(lines: Sequence[Line], limit: int) -> Curve:
    chosen = [lines[index] for index in thinned([_loss(line) for line in lines], limit)]
    names = dict.fromkeys(name for line in chosen for name in line.metrics if name not in SKIPPED)
    return Curve(
        [rounded(line.flops) or 0.0 for line in chosen],
        {name: [rounded(line.metrics.get(name)) for line in chosen] for name in names},
    )


def thinned(values: Sequence[float], limit: int) -> list[int]:
    """Places of at most ``limit`` values that draw the same line: first, last, and one of every bucket between.

    Of a bucket it is the value that spans the largest triangle with the one chosen before and the mean of the next
    bucket (largest-triangle-three-buckets, Steinarsson 2013), so that a spike is not thinned away. A value that is
    not finite counts as the largest.
    """
    count = len(values)
    if count <= limit or limit < 3:
        return list(range(count))
    finite = [value for value in values if math.isfinite(value)]
    ceiling = max(finite, default=0.0)
    heights = [value if math.isfinite(value) else ceiling for value in values]
    width = (count - 2) / (limit - 2)
    edges = [1 + round(bucket * width) for bucket in range(limit - 1)]
    chosen = [0]
    for start, end, after in zip(edges, edges[1:], [*edges[2:], count], strict=False):
        following = heights[end:after] or heights[-1:]
        mean_x, mean_y = (end + max(end, after - 1)) / 2, sum(following) / len(following)
        last = chosen[-1]

        def area(index: int, last: int = last, mean_x: float = mean_x, mean_y: float = mean_y) -> float:
            return abs((last - mean_x) * (heights[index] - heights[last]) - (last - index) * (mean_y - heights[last]))

        chosen.append(max(range(start, end), key=area))
    return [*chosen, count - 1]


def rounded(value: float | None, digits: int = _DIGITS) -> Number:
    """As many digits as a picture shows; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _loss(line: Line) -> float:
    value = line.metrics.get("loss")
    return math.nan if value is None else float(value)
