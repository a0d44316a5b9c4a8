"""Bars of other packages do not stand among the lines of a study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["search.parameters.0.include=[token]", "model.training.num_flops=3e8", "evaluation.max_windows=12"]


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.app.cli import main; main()", *words],
        env={name: value for name, value in os.environ.items() if not name.startswith("TQDM_")} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.extended
def test_lm_eval_draws_no_bars_among_lines(tmp_path: Path) -> None:
    settings = [*SMALL, "benchmarks={tasks: [markov_choice], limit: 4}", "samples.num_prompts=0"]
    store = ["--store", str(tmp_path)]
    run = command("run", "smoke", "--local", "--plain", *settings, "tracking.enabled=false", *store)
    assert run.returncode == 0, run.stderr
    assert "tasks of the token model: done" in run.stdout
    scored = command("eval", "token", "--protocols", "none", "--tasks", "markov_choice", "--limit", "4", *store)
    assert scored.returncode == 0, scored.stderr
    assert "markov_choice" in scored.stdout
    for said in (run.stderr, scored.stderr):
        assert "it/s" not in said
        assert "%|" not in said
