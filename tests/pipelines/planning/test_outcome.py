"""Estimate against outcome, in words that say which of the two was larger."""

from __future__ import annotations

import pytest

from pipelines.planning.forecast import Expected


def test_work_that_others_did_is_not_compared() -> None:
    """A second driver of an array told of an estimate 114806 % too high."""
    shared = Expected(1, 600.0, 3.0, elsewhere=5)
    told = "3 s taken; other drivers ran 5 of the stages for which 10:00 were estimated in all"
    assert str(shared) == told
    assert shared.record().error is None


@pytest.mark.parametrize(
    ("estimated", "measured", "ending"),
    [(15.0, 40.0, "(estimate 62 % too low)"), (30.0, 20.0, "(estimate 50 % too high)"), (20.0, 20.0, "taken")],
)
def test_an_estimate_is_too_low_or_too_high(estimated: float, measured: float, ending: str) -> None:
    assert str(Expected(1, estimated, measured)).endswith(ending)
