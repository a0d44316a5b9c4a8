"""Estimate against outcome, in words that say which of the two was larger."""

from __future__ import annotations

import pytest

from pipelines.planning.forecast import Expected


@pytest.mark.parametrize(
    ("estimated", "measured", "ending"),
    [(15.0, 40.0, "(estimate 62 % too low)"), (30.0, 20.0, "(estimate 50 % too high)"), (20.0, 20.0, "taken")],
)
def test_an_estimate_is_too_low_or_too_high(estimated: float, measured: float, ending: str) -> None:
    assert str(Expected(1, estimated, measured)).endswith(ending)
