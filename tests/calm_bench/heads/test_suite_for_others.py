"""The head of the documentation, with the test that the documentation gives it, as somebody else would run them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import calm_bench

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own-head.md"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    head, test = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    pytester.makepyfile(my_heads=head, test_my_heads=test)
    pytester.makeini("[pytest]\naddopts = --strict-markers")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), str(Path(calm_bench.__file__).parents[1])]))
    return pytester


@pytest.mark.slow
def test_a_head_of_ones_own_is_tested_in_ones_own_project(project: pytest.Pytester) -> None:
    done = project.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    assert done.parseoutcomes()["passed"] >= 17
    done.assert_outcomes(passed=done.parseoutcomes()["passed"])


@pytest.mark.slow
def test_a_head_that_breaks_the_contract_fails_with_its_values(project: pytest.Pytester) -> None:
    """A head that looks at the other rows; the assertion shows what was compared."""
    head = project.path / "my_heads.py"
    head.write_text(head.read_text().replace("return mean, self", "return mean - mean.mean(), self"))
    done = project.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-k", "shape or does_not_see")
    assert done.parseoutcomes() == {"passed": 1, "failed": 1, "deselected": done.parseoutcomes()["deselected"]}
    done.stdout.fnmatch_lines(["*Tensor-likes are not close*"])
