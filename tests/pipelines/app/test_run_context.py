"""A study that is wholly cached must not pay for Ray, nor one whose plan is refused."""

from __future__ import annotations

from pathlib import Path

import psutil

from pipelines.app.run_context import RunContext
from pipelines.study.config import Execution, Study


def test_nothing_is_started_before_the_first_stage(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with RunContext.of(Study(name="early", execution=Execution(store=str(tmp_path)))) as place:
        assert place.executor.parallelism >= 1
        assert psutil.Process().children(recursive=True) == before
