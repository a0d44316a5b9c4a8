"""On CI, a test that would be skipped fails, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
TESTS = """
import pytest
def test_imperative(): pytest.skip("there is no Chromium here")
@pytest.fixture
def server(): pytest.skip("there is no server here")
def test_fixture(server): pass
@pytest.mark.skipif(True, reason="there is no moon here")
def test_condition(): pass
@pytest.mark.gpu
def test_gpu(): pytest.skip("there is no GPU here")
@pytest.mark.xfail
def test_expected(): assert False
def test_passes(): pass
"""
MODULE = 'import pytest\npytest.importorskip("no_such_module", reason="there is no such module here")\n'


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    pytester.makepyprojecttoml(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    pytester.makepyfile(test_some=TESTS, test_module=MODULE)
    return pytester


def test_what_is_missing_skips_with_its_reason(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALM_BENCH_REQUIRE_ALL", raising=False)
    done = project.runpytest_inprocess("-rs", "-p", "no:cacheprovider", ".")
    done.assert_outcomes(passed=1, skipped=5, xfailed=1)
    done.stdout.fnmatch_lines(["*there is no Chromium here"])


def test_what_is_missing_fails_where_all_is_required(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALM_BENCH_REQUIRE_ALL", "1")
    done = project.runpytest_inprocess("-p", "no:cacheprovider", "--continue-on-collection-errors", ".")
    done.assert_outcomes(passed=1, skipped=1, failed=1, xfailed=1, errors=3)
    for missing in ("Chromium", "server", "moon", "such module"):
        done.stdout.fnmatch_lines([f"*there is no {missing} here*"])
