"""What commands print for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.app import commands
from pipelines.app.cli import app
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


def test_every_command_that_prints_results_prints_json() -> None:
    """Except for pages that are served, lm-eval's own command, and the schema, which is JSON already."""
    found = typer.main.get_command(app)
    without = {name for name, options in options_of(found) if "--json" not in options}
    assert without == {"ui", "lm-eval", "schema"}


def options_of(command: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command below ``command`` with the names of its options."""
    for word, below in getattr(command, "commands", {}).items():
        yield from options_of(below, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, {option for parameter in command.params for option in parameter.opts}


def test_no_command_writes_json_by_other_means() -> None:
    folder = Path(commands.__file__).parent
    own = {path.name for path in folder.glob("*.py") if re.search(r"json\.dumps?\(", path.read_text(encoding="utf-8"))}
    assert own == {"options.py"}
