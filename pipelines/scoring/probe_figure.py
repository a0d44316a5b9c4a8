"""The picture of an autoencoder's probes: accuracy against noise and against bits, and what each dimension says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.common.canvas import INK, PALETTE, canvas, quiet, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from calm_bench.autoencoder.probe import AccuracyAt, Probes

_LINE = PALETTE[3]
_MARK = PALETTE[4]


def draw_probes(probes: Probes, path: Path) -> None:
    """Write the picture to ``path``, in the format of its suffix. Bars are one standard error over chunks."""
    with canvas(13, 4.2) as figure:
        noise, bits, dimensions = figure.subplots(1, 3)
        _curve(noise, probes.noise, "standard deviation of the noise added to the latent (prior: 1)")
        noise.axvline(probes.posterior_std, color=_MARK, linewidth=1.2, linestyle=(0, (4, 2)))
        noise.annotate(
            "the posterior's own",
            (probes.posterior_std, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=_MARK,
            fontsize=9,
        )
        noise.set_ylabel("tokens reconstructed", color=INK)
        _curve(bits, probes.bits, "bits per latent dimension")
        bits.set_xticks([point.level for point in probes.bits])
        per_token = probes.latent_size / probes.chunk_size
        upper = bits.secondary_xaxis("top", functions=(lambda b: b * per_token, lambda b: b / per_token))
        upper.set_xlabel("bits per token", color=INK)
        upper.tick_params(colors=INK)
        _dimensions(dimensions, probes)
        figure.suptitle(
            f"Autoencoder of K = {probes.chunk_size} tokens, {probes.latent_size} dimensions "
            f"({probes.posterior.num_tokens:,} held-out tokens)",
            x=0.01,
            ha="left",
            fontsize=13,
            weight="bold",
            color=INK,
        )
        write(figure, path)


def _curve(axes: Axes, points: Sequence[AccuracyAt], label: str) -> None:
    axes.errorbar(
        [point.level for point in points],
        [point.accuracy.value for point in points],
        yerr=[point.accuracy.standard_error for point in points],
        color=_LINE,
        marker="o",
        markersize=5,
        capsize=3,
    )
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    quiet(axes, label, grid="y")


def _dimensions(axes: Axes, probes: Probes) -> None:
    kl = sorted(probes.collapsed.kl, reverse=True)
    axes.bar(range(1, len(kl) + 1), kl, width=0.8, color=_LINE)
    axes.axhline(probes.collapsed.threshold, color=_MARK, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set_title(f"{probes.collapsed.value} collapsed", fontsize=10, color=_MARK, loc="right")
    axes.set_ylabel("KL(posterior || prior), nats a chunk", color=INK)
    quiet(axes, "latent dimensions, by what they say", grid="y")
