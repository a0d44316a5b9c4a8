"""What holds for every test: which are quick, that on CI none is skipped, and one browser for all pages looked at."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Ray reads it when it is imported; `calm-bench` sets it before it imports Ray.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

# numpy 2.0 asks lscpu when its tests' tools are imported, which scipy does: before a quick test may start no process.
importlib.import_module("numpy.testing")

# A deadline of an example measures what else the machine does.
hypothesis.settings.register_profile("calm-bench", deadline=None)
hypothesis.settings.load_profile("calm-bench")

REQUIRE_ALL = bool(os.environ.get("CALM_BENCH_REQUIRE_ALL"))
"""Whether a skipped test is a failure: nobody reads the reasons on CI, where all that tests need is installed."""

TESTS = Path(__file__).parent
QUICK_FOLDERS = {
    "calm_bench",
    "calm_bench/corpora",
    "calm_bench/tokens",
    "pipelines/common",
    "pipelines/monitor",
    "pipelines/planning",
    "pipelines/results",
    "pipelines/study",
}
"""Rooms whose tests compute on what they are given: quick, but for those that the rules below except."""
STARTING = {"mlflow", "moto", "multiprocessing", "playwright", "psycopg", "ray", "subprocess"}
"""A module that imports one of these starts something that takes its time."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without quick tests are not even imported by ``-m quick``: half of its time would go into that.

    Nor are the conftests of folders without any, which ask for packages that quick tests do without.
    """
    if config.option.markexpr == "quick" and collection_path.is_dir() and collection_path.is_relative_to(TESTS):
        below = collection_path.relative_to(TESTS)
        return None if any(Path(folder).is_relative_to(below) for folder in QUICK_FOLDERS) else True
    if config.option.markexpr == "quick" and collection_path.suffix == ".py" and collection_path.parent != TESTS:
        return None if _folder(collection_path) in QUICK_FOLDERS else True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_quick(item):
            item.add_marker(pytest.mark.quick)


def _is_quick(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return (
        _folder(item.path) in QUICK_FOLDERS
        and not any(item.get_closest_marker(name) for name in ("slow", "extended", "long", "gpu"))
        and not any(value.__name__ in STARTING for value in vars(module).values() if isinstance(value, ModuleType))
    )


def _folder(path: Path) -> str:
    return path.parent.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


class _Processes:
    """Hears of every process that this one starts, and refuses while a quick test runs."""

    refused = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.refused and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            raise RuntimeError(f"a quick test starts no process ({event}): mark it slow, or import what it starts")


PROCESSES = _Processes()
sys.addaudithook(PROCESSES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """What ``quick`` promises is kept, by whatever way a process is started."""
    PROCESSES.refused = item.get_closest_marker("quick") is not None
    try:
        return (yield)
    finally:
        PROCESSES.refused = False


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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium, without a window; one for a whole session, since two would share an event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev has it)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
        )
        yield browser
        browser.close()
