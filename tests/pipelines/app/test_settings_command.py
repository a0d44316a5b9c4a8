"""Settings and the schema from the command line, and completion in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.study.catalogue import resolve_study


def test_settings_are_found_by_words() -> None:
    done = CliRunner().invoke(app, ["settings", "warmup", "model", "--json"])
    paths = [one["path"] for one in json.loads(done.output)]
    assert "model.training.warmup_steps" in paths
    assert "autoencoder.training.num_steps" not in paths
    assert "paper-xl:" in CliRunner().invoke(app, ["settings", "model.hidden_size"]).output
    assert isinstance(CliRunner().invoke(app, ["settings", "nonsense"]).exception, ConfigurationError)


def test_studies_are_listed_as_json() -> None:
    listed = json.loads(CliRunner().invoke(app, ["studies", "--json"]).output)
    shown = CliRunner().invoke(app, ["studies"]).output
    assert {"smoke", "k-ablation"} <= {study["name"] for study in listed}
    assert all(study["name"] in shown and study["description"] for study in listed)
    smoke = json.loads(CliRunner().invoke(app, ["studies", "--show", "smoke", "--json"]).output)
    assert smoke == resolve_study("smoke").model_dump(mode="json")


def test_the_schema_is_json() -> None:
    schema = json.loads(CliRunner().invoke(app, ["schema"]).output)
    assert schema["additionalProperties"] is False
    assert "required" not in schema


@pytest.mark.slow
def test_a_shell_completes_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'calm-bench'; from pipelines.app.cli import app; app()"],
        env={**os.environ, "_CALM_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "calm-bench lead", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["leaderboard"], done
