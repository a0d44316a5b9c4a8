"""What the page prints: figures with their errors, and the answers of the headline."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.common.numbers import MISSING, scientific, share_with_error, typeset, with_error
from pipelines.report.answers_table import answers_table
from pipelines.report.columns import texts_of
from pipelines.report.data import Column
from pipelines.results.answers import Answer, Claim, Difference, Headline, Ratio


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (scientific(1.31e13), "1.31×10¹³"),  # noqa: RUF001
        (scientific(2.5e-4), "2.50×10⁻⁴"),  # noqa: RUF001
        (with_error(12.34, 0.21), "12.34 ± 0.21"),
        (share_with_error(0.9995, 0.0002), "99.95 ± 0.02 %"),
        ("99.98%", "99.98 %"),
        ("281M", "281M"),
        ("8 s", "8 s"),
    ],
)
def test_numbers_are_typeset(text: str, printed: str) -> None:
    assert typeset(text) == printed


def test_values_are_printed_as_the_terminal_prints_them() -> None:
    columns = [
        Column("brierlm", "BrierLM", error="brierlm_se"),
        Column("plain", "Without an error", error="plain_se"),
        Column("flops", "FLOPs", form="flops"),
        Column("accuracy", "Autoencoder", form="share"),
        Column("time", "Time", form="duration"),
        Column("head", "Head", form="text"),
        Column("missing", "Missing"),
    ]
    values = {"brierlm": 4.5, "brierlm_se": 0.25, "plain": 3.0, "flops": 3.5e12, "accuracy": 0.99989, "time": 125.0}
    assert texts_of({**values, "head": "", "missing": None}, columns) == {
        "brierlm": "4.50 ± 0.25",
        "plain": "3.00",
        "flops": "3.50×10¹²",  # noqa: RUF001
        "accuracy": "99.98 %",
        "time": "2:05",
        "head": MISSING,
        "missing": MISSING,
    }


def headline_with(answers: list[Answer], differences: list[Difference]) -> Headline:
    claim = Claim("open", "open", ())
    return Headline("ff", "token", (), tuple(answers), tuple(differences), claim, "", ())


def answer(family: str, **ratios: Ratio | None) -> Answer:
    parts: dict[str, Any] = {"training": None, "total": None, "inference": None, **ratios}
    return Answer(family, "token", 12.4, **parts, state="answered", sentence="")


def difference(family: str, gap: float) -> Difference:
    return Difference(family, "token", gap, 0.3, True, 1.0, 1.0, 1.0, "neither", "")


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
