"""What holds for every test: on CI none is skipped."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

REQUIRE_ALL = bool(os.environ.get("CALM_BENCH_REQUIRE_ALL"))
"""Whether a skipped test is a failure: nobody reads the reasons on CI, where all that tests need is installed."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Modules whose ``importorskip`` found nothing fail under ``CALM_BENCH_REQUIRE_ALL``."""
    report = yield
    return _required(report)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skipped tests fail under ``CALM_BENCH_REQUIRE_ALL``, but for those marked ``gpu``."""
    report = yield
    return report if item.get_closest_marker("gpu") else _required(report)


def _required(report: Any) -> Any:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"{reason}\n(a failure, since CALM_BENCH_REQUIRE_ALL is set)"
    return report
