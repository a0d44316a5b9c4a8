"""Numbers as text: two significant digits of an error, and its value to match, at every size."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common.numbers import (
    clipped_with_error,
    interval,
    printable,
    share_with_error,
    short,
    signed_with_error,
    with_error,
)

VALUES = st.floats(-1e6, 1e6)
ERRORS = st.floats(1e-9, 1e6)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.337, 0.2149, "12.34±0.21"),
        (0.00432, 0.00118, "0.0043±0.0012"),
        (4.47, 1.19, "4.5±1.2"),
        (10.87, 0.0996, "10.87±0.10"),
        (10.87, 0.996, "10.9±1.0"),
        (1234.5, 123.4, "1230±120"),
        (99.6, 99.6, "100±100"),
        (-0.0001, 0.21, "0.00±0.21"),
        (1.234, 0.0, "1.23±0"),
        (0.01234, 0.0, "0.012±0"),
        (-100.0, 1.4e-14, "-100.00±0"),
        (1.0, math.nan, "1±nan"),
    ],
)
def test_the_error_has_two_digits_and_the_value_its_decimals(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


@given(VALUES, ERRORS)
def test_what_is_told_is_what_was_measured(value: float, error: float) -> None:
    told_value, told_error = map(Decimal, with_error(value, error).split("±"))
    # Half a unit of the second digit of the error, whatever its size.
    unit = Decimal(10) ** (told_error.adjusted() - 1)
    assert abs(told_error - Decimal(error)) <= unit / 2 * Decimal("1.0001")
    assert abs(told_value - Decimal(value)) <= unit / 2 * Decimal("1.0001")


@given(VALUES, ERRORS)
def test_value_and_error_have_equally_many_decimals_and_no_more_than_two_digits(value: float, error: float) -> None:
    texts = with_error(value, error).split("±")
    assert len({len(text.partition(".")[2]) for text in texts}) == 1
    assert len(texts[1].replace(".", "").strip("0")) <= 2
    assert texts[0] not in ("-0", "-0.0", "-0.00")


@given(VALUES, ERRORS)
def test_a_difference_has_a_sign(value: float, error: float) -> None:
    assert signed_with_error(value, error)[0] in "+-"
    assert signed_with_error(value, error).lstrip("+") == with_error(value, error)


def test_a_score_that_could_not_be_lower_says_so() -> None:
    assert clipped_with_error(0.0, 0.0) == "0 (clipped)"
    assert clipped_with_error(0.0, 0.31) == "0.00±0.31 (clipped)"
    assert clipped_with_error(0.31, 0.2) == with_error(0.31, 0.2)


def test_shares_are_in_percent() -> None:
    assert share_with_error(0.99954, 0.000213) == "99.954±0.021 %"
    assert share_with_error(1.0, 0.0) == "100.00±0 %"


def test_names_on_a_line_keep_what_words_are_made_of() -> None:
    assert printable("two\nlines\x1b[31m \u202eturned") == "two lines�[31m �turned"
    assert printable("👩\N{ZERO WIDTH JOINER}💻 می\N{ZERO WIDTH NON-JOINER}خواهم") == (
        "👩\N{ZERO WIDTH JOINER}💻 می\N{ZERO WIDTH NON-JOINER}خواهم"
    )


def test_small_numbers_keep_two_digits() -> None:
    assert [short(value) for value in (3.14159, 0.0998, 0.00432, 0.0, -0.004)] == [
        "3.14",
        "0.10",
        "0.0043",
        "0.00",
        "-0.004",
    ]
    assert [short(value, 1) for value in (12.34, 1.0, 0.413)] == ["12.3", "1.0", "0.41"]
    assert interval(-2.404, 0.861) == "-2.40 to 0.86"
    assert interval(-0.00931, -0.00312) == "-0.0093 to -0.0031"
    assert interval(-0.0001, 123.4) == "0.00 to 123.40"
    assert interval(0.5, 0.5) == "0.5 to 0.5"
    assert interval(0.71, 3.28, 1, signed=True) == "+0.7 to +3.3"
    assert interval(-0.004, 0.0051, 1, signed=True) == "-0.0040 to +0.0051"
