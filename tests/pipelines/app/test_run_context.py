"""Ray takes seconds to start: it begins before the plan, where something is likely to be run."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pipelines.app.run_context import Workplace
from pipelines.study.config import Execution, Study

pytestmark = pytest.mark.slow


def _rays() -> int:
    """How many instances of Ray this process has started."""
    return sum("gcs_server" in process.name() for process in psutil.Process().children(recursive=True))


@pytest.mark.parametrize("begun", ["never", "not to its end", "to its end"])
def test_ray_starts_before_the_plan_where_no_study_of_the_name_has_ended(begun: str, tmp_path: Path) -> None:
    study = Study(name="early", execution=Execution(store=str(tmp_path)))
    if begun != "never":
        folder = tmp_path / "studies" / "early-0123456789abcdef"
        folder.mkdir(parents=True)
        (folder / ("leaderboard.json" if begun == "to its end" else "trials.json")).write_text("[]")
    before = _rays()
    with Workplace.of(study) as place:
        place.executor.settle()
        assert _rays() - before == (begun != "to its end")
        # A plan that says so starts it in any case.
        place.executor.prepare()
        place.executor.settle()
        assert _rays() - before == 1
    assert _rays() == before


def test_ray_does_not_start_where_the_plan_may_refuse(tmp_path: Path) -> None:
    study, before = Study(name="early", execution=Execution(store=str(tmp_path))), _rays()
    with Workplace.of(study, may_be_refused=True) as place:
        place.executor.settle()
        assert _rays() == before
