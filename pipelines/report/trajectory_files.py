"""The files of trajectories in a study's folder: the points with their correlations, and the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from calm_bench.atomic import write_json, write_with
from pipelines.common.canvas import FAINT, INK, MARKERS, PALETTE, canvas, quiet, write
from pipelines.common.numbers import printable
from pipelines.report.pictures import attempt
from pipelines.results.trajectories import NAME, Trajectory, correlations, summary


def write_trajectories(
    trajectories: Sequence[Trajectory], folder: Path, warn: Callable[[str], None] = print
) -> list[Path]:
    """Write ``trajectory.json`` and ``trajectory.png`` into ``folder``; nothing where there are no trajectories.

    Args:
        warn: told why there is no picture, where drawing fails.
    """
    if not trajectories:
        return []
    rows = [
        {
            "trial": trajectory.trial,
            "label": trajectory.label,
            "cross_entropy_kind": trajectory.cross_entropy_kind,
            "protocol_hash": trajectory.comparable[0],
            "cross_entropy_text": trajectory.comparable[1],
            "model_identity": trajectory.model_identity,
            "points": [vars(point) for point in trajectory.points],
        }
        for trajectory in trajectories
    ]
    table, picture = folder / f"{NAME}.json", folder / f"{NAME}.png"
    write_json(table, {"trajectories": rows, "correlations": correlations(trajectories)})
    drawn = attempt(lambda: write_with(picture, lambda temporary: draw(trajectories, temporary, "png")), picture, warn)
    return [table, picture] if drawn else [table]


def draw(trajectories: Sequence[Trajectory], path: Path, file_format: str | None = None) -> None:
    """BrierLM against cross-entropy, bars one standard error; a line connects the models of one training."""
    with canvas(7.5, 5.2) as figure:
        axes = figure.subplots()
        quiet(axes, "cross-entropy of held-out text, nats per token (lower is better)")
        axes.set_ylabel("BrierLM (higher is better)", color=INK)
        for index, trajectory in enumerate(trajectories):
            style = index % len(PALETTE)
            points = trajectory.points
            bound = ", upper bound" if trajectory.cross_entropy_kind == "bound" else ""
            axes.errorbar(
                [point.cross_entropy for point in points],
                [point.brierlm for point in points],
                xerr=[point.cross_entropy_se for point in points],
                yerr=[point.brierlm_se for point in points],
                color=PALETTE[style],
                ecolor=FAINT,
                marker=MARKERS[style],
                markersize=6,
                linewidth=1.0,
                elinewidth=1.0,
                label=f"{printable(trajectory.label)}{bound}",
            )
        axes.legend(frameon=False, labelcolor=INK)
        title = "BrierLM against cross-entropy along training"
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold", color=INK)
        figure.supxlabel("\n".join(summary(trajectories)), x=0.01, ha="left", fontsize=8, color="#666666")
        write(figure, path, file_format)
