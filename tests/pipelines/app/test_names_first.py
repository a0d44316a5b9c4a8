"""All names that a command is given are looked up before anything is opened, scored or printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.errors import UsageError
from pipelines.app.cli import app

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "energy_k4"
"""A model without a tokenizer, which is told of when it is scored."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", str(GOLDEN), "nosuch"], "there is no model 'nosuch'"),
        (["context-sweep", f"{GOLDEN},nosuch"], "there is no model 'nosuch'"),
        (["eval", str(GOLDEN), "--scorer", "nosuch"], "nosuch"),
        (["eval", str(GOLDEN), "--protocols", "matched,nosuch"], "unknown protocol 'nosuch'"),
    ],
)
def test_a_name_that_does_not_exist_is_what_is_said(words: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words, "--store", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert done.stdout == ""
