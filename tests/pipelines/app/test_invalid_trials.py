"""Trials whose settings do not fit are known before anything runs, and no plan hides them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app

STUDY = """
preset: tiny
tracking: {enabled: false}
search:
  parameters:
    - {name: model.chunk_size, values: [2, 7]}
"""


@pytest.mark.parametrize("command", [["plan"], ["run", "--local", "--no-calibration"]])
def test_a_trial_that_cannot_run_ends_the_command_and_names_the_way_out(command: list[str], tmp_path: Path) -> None:
    """K = 7 divides no sequence of 256 tokens."""
    study, store = tmp_path / "sizes.yaml", tmp_path / "runs"
    study.write_text(STUDY)
    name, *options = command
    ended = CliRunner().invoke(app, [name, str(study), "--store", str(store), *options])
    assert isinstance(ended.exception, ConfigurationError), ended.output
    assert ended.exception.exit_code == 2
    assert "K=7" in str(ended.exception) or "chunk_size=7" in str(ended.exception)
    assert "--skip-invalid" in str(ended.exception)
    assert not list(store.glob("stages/*/*")), "nothing was run"
