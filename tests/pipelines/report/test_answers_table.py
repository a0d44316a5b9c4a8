"""What the page prints: figures with their errors, and the answers of the headline."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipelines.common.numbers import MISSING, scientific, share_with_error, typeset, with_error
from pipelines.report.answers_table import answers_table
from pipelines.report.collect import collect
from pipelines.results.answers import Answer, Claim, Difference, Headline, Ratio


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (scientific(1.31e13), "1.31×10¹³"),  # noqa: RUF001
        (scientific(2.5e-4), "2.50×10⁻⁴"),  # noqa: RUF001
        (with_error(12.34, 0.21), "12.34 ± 0.21"),
        (share_with_error(0.9995, 0.0002), "99.950 ± 0.020 %"),
        ("99.98%", "99.98 %"),
        ("281M", "281M"),
        ("8 s", "8 s"),
    ],
)
def test_numbers_are_typeset(text: str, printed: str) -> None:
    assert typeset(text) == printed


def test_cells_are_those_of_the_terminal_typeset(builder: Any) -> None:
    (board,) = collect(builder.store, [builder.study(2)]).boards
    token, chunked = sorted(
        (row.texts for row in board.rows), key=lambda texts: texts["autoencoder_accuracy"] != MISSING
    )
    assert re.fullmatch(r"\d+\.\d\d ± 0\.\d\d", token["brierlm"])
    assert re.fullmatch(r"\d\.\d\d×10¹²", token["total_training_flops"])  # noqa: RUF001
    assert token["head"] == MISSING
    assert (chunked["autoencoder_accuracy"], chunked["head"]) == ("99.93 %", "energy")


def headline_with(answers: list[Answer], differences: list[Difference]) -> Headline:
    claim = Claim("open", "open", ())
    return Headline("ff", "token", (), tuple(answers), tuple(differences), claim, "", ())


def answer(family: str, **ratios: Ratio | None) -> Answer:
    parts: dict[str, Any] = {"training": None, "total": None, "inference": None, **ratios}
    return Answer(family, "token", 12.4, **parts, state="answered", sentence="")


def difference(family: str, gap: float) -> Difference:
    return Difference(family, "token", gap, 0.3, (gap - 0.6, gap + 0.6), True, 1.0, 1.0, 1.0, 1.0, "neither", "")


@pytest.mark.parametrize(
    ("ratio", "cell"),
    [
        (Ratio(4.69, 3.71, 5.99), ("4.69×", " [3.71, 5.99]")),  # noqa: RUF001
        (Ratio(4.69, 3.71, None), ("4.69×", " [3.71, ∞]")),  # noqa: RUF001
        (Ratio(0.5, 0.5, 0.5), ("0.50×", "")),  # noqa: RUF001
        (Ratio(123.4, 90.0, 200.0), ("123×", " [90.00, 200.00]")),  # noqa: RUF001
        (Ratio(None, 1.13, None), ("> 1.13×", "")),  # noqa: RUF001
        (Ratio(None, 0.0, 0.8), ("< 0.80×", "")),  # noqa: RUF001
        (Ratio(None, 0.0, None), (MISSING, "")),
    ],
)
def test_a_ratio_is_told_with_its_interval_or_its_bound(ratio: Ratio, cell: tuple[str, str]) -> None:
    table = answers_table(headline_with([answer("K=4", training=ratio)], []))
    assert table is not None
    assert table["rows"][0]["cells"][1] == cell


def test_a_difference_is_told_once() -> None:
    ratio = Ratio(1.5, 1.0, 2.0)
    answers = [answer("K=4", training=ratio), answer("K=4", total=ratio), answer("K=8")]
    table = answers_table(headline_with(answers, [difference("K=4", -2.13), difference("K=2", 0.5)]))
    assert table is not None
    assert table["reference"] == "token"
    assert [(row["family"], row["cells"][0][0], row["cells"][-1][0]) for row in table["rows"]] == [
        ("K=4", "12.40", "−2.13 ± 0.30"),  # noqa: RUF001
        ("K=4", "12.40", ""),
        ("K=2", MISSING, "+0.50 ± 0.30"),
    ]
    assert answers_table(headline_with([answer("K=8")], [])) is None
