"""A sampler of one's own on the command line, by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.app.cli import main
from pipelines.scoring.evaluating import EvalRequest, evaluate_model
from pipelines.scoring.models import open_code
from pipelines.store.store import Store

SHORT = ["corpus.source=markov", "corpus.markov.num_documents=60", "corpus.markov.document_length=300"]
SHORT += ["evaluation.context_length=64", "evaluation.num_samples=4", "evaluation.max_windows=30"]
CODE = """
import numpy as np
from pathlib import Path

Path("ran").touch()

class Uniform:
    vocab_size = 257
    chunk_size = 1

    def sample(self, contexts, num_samples, horizon, seeds):
        draws = [np.random.default_rng(seed).integers(0, 257, (num_samples, horizon)) for seed in seeds]
        return np.stack(draws)

class NeedsArguments(Uniform):
    def __init__(self, folder):
        self.folder = folder

class NoSampler:
    vocab_size = 257
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Name of a module in the working directory, of this test alone, as modules are imported once."""
    name = re.sub(r"\W", "_", f"own_{request.node.name}")
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calm-bench", "eval", *arguments, "--no-track", *SHORT])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_class_is_scored_and_its_text_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, f"{module}:Uniform", "--trust-code", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    matched = found["brierlm"]["matched"]
    # A guess among 257: E[2 P(truth) - sum P^2] = 1/257.
    assert matched["brier"][0] == pytest.approx(1 / 257, abs=4 * matched["brier_se"][0])
    assert (found["text"]["source"], found["text"]["split"]) == ("markov", "test")
    assert found["text"]["digest"] == matched["protocol"]["corpus_digest"]
    assert command(monkeypatch, f"{module}:Uniform", "--trust-code") == 0
    assert "markov, split test, corpus " in capsys.readouterr().out


def test_a_file_of_rows_that_cannot_be_written_is_told_of_before_anything_is_scored(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"{module}.py").write_text(CODE.replace("draws = [", "raise AssertionError('scored')\n        draws = ["))
    assert command(monkeypatch, f"{module}:Uniform", "--trust-code", "--rows", "/proc/rows.json") == 1
    told = capsys.readouterr().err
    assert "/proc/rows.json" in told
    assert "AssertionError" not in told


def test_code_runs_only_on_the_users_word(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, f"{module}:Uniform") == 2
    assert "--trust-code" in capsys.readouterr().err
    assert not Path("ran").exists()
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Unifrom", "did you mean 'Uniform'"),
        ("NeedsArguments", "without arguments"),
        ("NoSampler", "it lacks chunk_size, sample"),
    ],
)
def test_what_is_no_sampler_is_refused(
    target: str, message: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, f"{module}:{target}", "--trust-code") == 2
    assert message in capsys.readouterr().err


def test_other_names_and_tasks_are_refused(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "best", "--trust-code") == 2
    assert "module:Class" in capsys.readouterr().err
    assert command(monkeypatch, "no_such_module:Uniform", "--trust-code") == 2
    assert "PYTHONPATH=." in capsys.readouterr().err
    assert command(monkeypatch, f"{module}:Uniform", "--trust-code", "--tasks", "markov_choice") == 2
    assert "only draws" in capsys.readouterr().err


@pytest.mark.slow
def test_the_path_that_is_advised_is_typed(module: str, tmp_path: Path) -> None:
    asked = ["eval", f"{module}:NoSampler", "--trust-code"]

    def typed(**variables: str) -> str:
        # As the installed command begins: the working directory is not on its path.
        program = "import sys; sys.path.remove(''); from calm_bench.command import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *asked],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        return done.stderr

    advised = re.search(r"(PYTHONPATH)=(\S+) calm-bench eval", typed())
    assert advised is not None
    assert "it lacks chunk_size, sample" in typed(**{advised[1]: advised[2]}), "it was imported"


def test_progress_counts_to_the_end(module: str, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    wanted = EvalRequest(protocols=("matched",), texts=False)
    model = open_code(f"{module}:Uniform")
    evaluate_model("uniform", model, Store(tmp_path / "s"), SHORT, "cpu", wanted, lambda *one: told.append(one))
    assert told[-1][0] == "matched"
    assert told[-1][1] == told[-1][2] > 0
