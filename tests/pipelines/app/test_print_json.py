"""What commands print for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines.app import commands
from pipelines.app.commands.options import print_json


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"score": float("nan"), "rows": [{"cost": float("inf"), "label": "K=4"}, (1, -float("inf"), 0.5)]}
    print_json(result)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"score": None, "rows": [{"cost": None, "label": "K=4"}, [1, None, 0.5]]}


def test_results_that_follow_each_other_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    for done in (1, 2):
        print_json({"done": done, "of": [2]}, indent=None)
    assert capsys.readouterr().out == '{"done": 1, "of": [2]}\n{"done": 2, "of": [2]}\n'


def test_no_command_writes_json_by_other_means() -> None:
    folder = Path(commands.__file__).parent
    own = {path.name for path in folder.glob("*.py") if re.search(r"json\.dumps?\(", path.read_text(encoding="utf-8"))}
    assert own == {"options.py"}
