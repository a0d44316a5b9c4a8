"""What is said of the time that is left."""

from __future__ import annotations

from pipelines.monitor.tracker import time_left
from pipelines.monitor.view import StudyView


def test_nothing_known_is_not_nothing_left() -> None:
    view = StudyView(study="smoke", folder="runs", num_trials=4, complete=1, remaining_s=0.2, unpriced=("evaluation",))
    assert time_left(view) == "time left not known yet (no evaluation has ended)"
    assert (
        time_left(view.model_copy(update={"remaining_s": 61.0})) == "at least 1:01 left (no evaluation has ended yet)"
    )
    assert time_left(view.model_copy(update={"remaining_s": 0.2, "unpriced": ()})).startswith("about")
