from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.legend import Legend
from matplotlib.text import Text

from calm_bench.overrides import ConfigurationError
from pipelines.common.canvas import MARKERS
from pipelines.report.figure import draw, parse_size, picture
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard

pytestmark = pytest.mark.slow


def svg_texts(path: Path) -> str:
    # Matplotlib draws text as outlines and leaves the text itself as comments.
    return " ".join(re.findall(r"<!--(.*?)-->", path.read_text(encoding="utf-8")))


def test_png_is_a_picture_of_the_promised_width(ablation: list[Entry], tmp_path: Path) -> None:
    draw(Leaderboard(ablation), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1760, 752)


def test_svg_is_well_formed_and_names_every_point(ablation: list[Entry], tmp_path: Path) -> None:
    draw(Leaderboard(ablation), tmp_path / "a.svg")
    ElementTree.parse(tmp_path / "a.svg")
    texts = svg_texts(tmp_path / "a.svg")
    for text in ("token", "K=1", "K=2", "K=4", "K=8", "Pareto front", "training FLOPs", "3f9a0c1be27d5a44", "412"):
        assert text in texts


def test_equal_rows_give_equal_pictures(ablation: list[Entry], tmp_path: Path) -> None:
    for suffix in ("svg", "pdf"):
        one, other = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        draw(Leaderboard(ablation), one)
        draw(Leaderboard(ablation[::-1]), other)
        assert one.read_bytes() == other.read_bytes()
        assert b"Date" not in one.read_bytes(), "a picture drawn tomorrow is the same"


def test_protocols_have_panels_of_their_own(
    ablation: list[Entry], make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    draw(Leaderboard([*ablation, make_entry(protocol_hash="ffff", label="other")]), tmp_path / "a.png")
    assert struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24]) == (1760, 2 * 752)


def test_heads_of_one_chunk_size_are_told_apart(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    heads = [make_entry(label=f"{head} head", head=head, chunk_size=4) for head in ("energy", "flow")]
    draw(Leaderboard(heads), tmp_path / "one.svg")
    token = make_entry(label="token", kind="token", head=None, chunk_size=1)
    draw(Leaderboard([*heads, make_entry(chunk_size=2, head="flow"), token]), tmp_path / "all.svg")
    for name, families in (
        ("one", ["K=4 energy", "K=4 flow"]),
        ("all", ["token", "K=2 flow", "K=4 energy", "K=4 flow"]),
    ):
        found = svg_texts(tmp_path / f"{name}.svg")
        places = [found.index(f" {family} ") for family in families]
        assert places == sorted(places), "in the legend, in this order"


def test_awkward_rows_are_drawn(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    zero = make_entry(brierlm=0.0, brierlm_se=0.0, brier=(0.1, 0.1, 0.1, -0.1))
    free = make_entry(total_training_flops=0.0, training_flops=0.0, inference_flops_per_token=0.0)
    odd = make_entry(label="$x^{ \x1b[0m <b>&", chunk_size=5)
    many = [make_entry(trial=trial, brierlm=1.0 + trial, chunk_size=2) for trial in range(12)]
    for number, rows in enumerate([[zero], [free], [odd], [zero, free, odd, *many]]):
        path = tmp_path / f"{number}.svg"
        draw(Leaderboard(rows), path)
        ElementTree.parse(path)
    assert "K=2" in svg_texts(tmp_path / "3.svg")  # too many for labels: the legend names the families


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        draw(Leaderboard([]), tmp_path / "a.png")


def test_a_picture_for_a_paper_has_its_size_and_no_words_of_its_own(ablation: list[Entry], tmp_path: Path) -> None:
    board = Leaderboard(ablation)
    path = tmp_path / "column.svg"
    draw(board, path, size=parse_size("3.3x2.4"))
    text = path.read_text()
    assert f'width="{3.3 * 72:g}pt" height="{2.4 * 72:g}pt"' in text
    assert "score against compute" not in text
    assert "Protocol" not in text
    with picture(board, parse_size("3.3x2.4")) as column, picture(board, (7.0, 2.4)) as page:
        assert (len(column.axes), len(page.axes)) == (1, 2)
        sizes = {text.get_fontsize() for text in column.findobj(Text) if text.get_text()}
        assert min(sizes) >= 5.5
    draw(board, tmp_path / "column.pdf", size=(3.3, 2.4))
    content = (tmp_path / "column.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    # Fonts that publishers take: TrueType, embedded.
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


@pytest.mark.parametrize("size", [None, "3.3x2.4", "7x2.4"])
def test_labels_cover_neither_each_other_nor_points(
    make_entry: Callable[..., Entry], size: str | None, tmp_path: Path
) -> None:
    """Points as close as those of equal budgets are."""
    scores = {"token": 20.0, "K=2": 19.6, "K=4 flow": 19.2, "K=4": 18.8, "patch K=4": 12.0}
    rows = [
        make_entry(label=label, brierlm=score, brierlm_se=0.2, total_training_flops=flops, training_flops=flops)
        for (label, score), flops in zip(scores.items(), (4e12, 4.1e12, 4e12, 3.9e12, 9e12), strict=True)
    ]
    with picture(Leaderboard(rows), None if size is None else parse_size(size)) as figure:
        canvas: Any = figure.canvas
        renderer = canvas.get_renderer()
        for axes in figure.get_axes():
            boxes = [text.get_window_extent(renderer) for text in axes.texts]
            assert len(boxes) == len(rows)
            points = [axes.transData.transform((axes_cost(axes, row), row.brierlm)) for row in rows]
            for number, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:number]), axes.texts[number].get_text()
                assert not any(box.contains(*point) for point in points), axes.texts[number].get_text()


def test_a_long_legend_covers_nothing(make_entry: Callable[..., Entry]) -> None:
    """It stands beside the panels, and still no number of an axis covers another."""
    rows = [
        make_entry(label=f"K={size} {head}", trial=10 * size + number, chunk_size=size, head=head, brierlm=1.0 + size)
        for size in (1, 2, 4, 8)
        for number, head in enumerate(("energy", "flow", "diffusion"))
    ]
    with picture(Leaderboard(rows)) as figure:
        canvas: Any = figure.canvas
        renderer = canvas.get_renderer()
        (legend,) = figure.findobj(Legend)
        assert len(legend.get_texts()) == 13
        for axes in figure.get_axes():
            assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
            boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
            assert not any(box.overlaps(other) for box, other in itertools.pairwise(boxes))


@pytest.mark.parametrize("size", [None, "3.3x2.4", "2x2", "7x2.4"])
@pytest.mark.parametrize("span", [1.0, 2.0, 2.5, 13.0, 300.0, 1e7])
def test_a_value_can_be_read_off_every_axis(make_entry: Callable[..., Entry], size: str | None, span: float) -> None:
    """Within a decade too, and within a part of one that holds points; no label covers another."""
    prices = [2e12 * span**part for part in (0.0, 0.5, 1.0)]
    rows = [
        make_entry(label=str(trial), trial=trial, total_training_flops=price, training_flops=price)
        for trial, price in enumerate(prices)
    ]
    with picture(Leaderboard(rows), None if size is None else parse_size(size)) as figure:
        canvas: Any = figure.canvas
        axes = figure.get_axes()[0]
        boxes = [label.get_window_extent(canvas.get_renderer()) for label in axes.get_xticklabels()]
        assert not any(box.overlaps(other) for box, other in itertools.pairwise(boxes))
        assert len(boxes) >= (3 if size != "2x2" else 2)
        low, high = axes.get_xlim()
        # No stretch of the axis is without a number, not even one that begins or ends it.
        inner = [mark for mark in axes.get_xticks() if low <= mark <= high]
        places = [0.0, *(math.log(mark / low) / math.log(high / low) for mark in inner), 1.0]
        longest = max(after - before for before, after in itertools.pairwise(places))
        assert longest < {None: 0.26, "2x2": 0.5}.get(size, 0.3), inner


@pytest.mark.parametrize("gap", [0.1, 0.57, 1.5])
def test_labels_of_points_that_nearly_coincide_keep_their_order(make_entry: Callable[..., Entry], gap: float) -> None:
    """As the token model and ``patch`` of equal budgets do; and the better of them lies on top."""
    rows = [
        make_entry(label=label, kind=kind, chunk_size=size, brierlm=score, total_training_flops=3.5e12)
        for label, kind, size, score in (("patch K=4", "patch", 4, 17.2 + gap), ("token", "token", 1, 17.2))
    ]
    with picture(Leaderboard(rows), (3.3, 2.4)) as figure:
        canvas: Any = figure.canvas
        (axes,) = figure.get_axes()
        patch, token = (text.get_window_extent(canvas.get_renderer()) for text in axes.texts)
        assert patch.y0 + patch.y1 > token.y0 + token.y1
        # Lines are drawn in their order.
        drawn = [line.get_ydata()[0] for line in axes.lines if line.get_marker() in MARKERS]
        assert drawn == [17.2, 17.2 + gap]


def axes_cost(axes: Any, row: Entry) -> float:
    """What a row costs on these axes."""
    cost = row.total_training_flops if "training" in axes.get_xlabel() else row.inference_flops_per_token
    assert cost is not None
    return cost


def test_several_protocols_are_no_picture_for_a_paper(ablation: list[Entry], tmp_path: Path) -> None:
    other = ablation[0].model_copy(update={"protocol_hash": "f" * 16})
    with pytest.raises(ConfigurationError, match="one protocol"):
        draw(Leaderboard([*ablation, other]), tmp_path / "column.png", size=(3.3, 2.4))


@pytest.mark.parametrize("text", ["3.3", "3.3x", "0x2", "ax2", "300x2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--size .* as in 3\.3x2\.4"):
        parse_size(text)
