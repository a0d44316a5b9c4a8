"""Weights or code that changed are never answered with the score of before, whichever command asks."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from tests.faults.small_study import STUDY, TRAINING

pytestmark = pytest.mark.slow

SHORT = {"training": TRAINING | {"num_steps": 30}}
HEAD = """
import torch
from importlib import import_module
from torch import nn

from calm_bench.heads import Head

class Normal(Head):
    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.linear = nn.Linear(hidden_size, latent_size)

    def loss(self, hidden, target_mean, target_log_std, generator=None):
        loss = (self.linear(hidden) - target_mean).square().mean()
        return loss, {"error": loss.detach()}

    def sample(self, hidden, num_samples, generator=None):
        mean = self.linear(hidden)
        noise = torch.randn((num_samples, *mean.shape), generator=generator)
        return mean + import_module("my_spread").SPREAD * noise
"""
SAMPLER = """
import numpy as np
from my_spread import SPREAD

class Narrow:
    vocab_size = 257
    chunk_size = 1

    def sample(self, contexts, num_samples, horizon, seeds):
        last = 97 + int(10 * SPREAD)
        return np.stack([np.random.default_rng(seed).integers(97, last, (num_samples, horizon)) for seed in seeds])
"""
MODELS = {
    "token": {"model.kind": "token"},
    "own": {"model.chunk_size": 2, "model.head": {"kind": "custom", "target": "my_head:Normal"}},
}
TEXT = ("corpus.source=markov", "corpus.markov.num_documents=100", "corpus.markov.document_length=200")
EVALUATION = {"context_length": 64, "first_position": 8, "num_samples": 4, "max_windows": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: code of one's own, a study file, and the store ``runs`` in which that study has ended."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "my_head.py").write_text(HEAD)
    (folder / "my_sampler.py").write_text(SAMPLER)
    study = STUDY | {
        "corpus": {"source": "markov", "markov": {"num_documents": 100, "document_length": 200}},
        "autoencoder": STUDY["autoencoder"] | SHORT,
        "model": {**{key: value for key, value in STUDY["model"].items() if key != "head"}, **SHORT},
        "evaluation": EVALUATION,
        "search": {"parameters": [{"name": "model", "choices": MODELS}]},
        "execution": {"backend": "local", "store": "runs"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("CALM_BENCH_TRUSTED_HEADS", "my_head:Normal")
        spread(folder, 1.0)
        run("run", "study.yaml", "--no-calibration", "--plain")
        yield folder
        forget_code()


def spread(folder: Path, value: float) -> None:
    """Set what the head and the sampler import from another file."""
    (folder / "my_spread.py").write_text(f"SPREAD = {value}\n")
    # Bytecode is chosen by seconds and size, which an edit within a second may leave as they were.
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    forget_code()


def forget_code() -> None:
    """As a process that begins: what was imported of one's own is read again."""
    for name in ("my_head", "my_sampler", "my_spread"):
        sys.modules.pop(name, None)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, repr(done.exception)
    return done.stdout


def models_in(folder: Path) -> dict[str, Path]:
    """Label -> the stage's folder."""
    (board,) = folder.glob("runs/studies/*/leaderboard.json")
    rows = [row for group in json.loads(board.read_text())["groups"] for row in group["entries"]]
    return {row["label"]: folder / "runs" / "stages" / "language_model" / row["model_identity"] for row in rows}


def difference(*models: str) -> Any:
    found = json.loads(run("compare", *models, "--store", "runs", "--json"))
    return found["value"], found["components"]


def score(*arguments: str) -> Any:
    found = json.loads(run("eval", *arguments, "--store", "runs", "--no-track", "--protocols", "matched", "--json"))
    return found["brierlm"]["matched"]["brier"]


def test_other_weights(folder: Path) -> None:
    stage = models_in(folder)["token"]
    copy = folder / "elsewhere" / stage.name
    shutil.copytree(stage, copy)
    # A copy outside the store does not tell on what text it was scored.
    settings = [*TEXT, *(f"evaluation.{name}={value}" for name, value in EVALUATION.items())]
    before = score(str(stage))
    assert score(str(copy), *settings) == before
    same = difference(str(copy), str(stage), *settings)
    weights = copy / "model" / "model.safetensors"
    save_file({name: tensor * 3 for name, tensor in load_file(weights).items()}, weights)
    assert score(str(copy), *settings) != before
    assert difference(str(copy), str(stage), *settings) != same


def test_other_code_of_a_head(folder: Path) -> None:
    before = difference("own", "token"), score("own")
    model = models_in(folder)["own"]
    try:
        spread(folder, 2.0)
        after = difference("own", "token"), score("own")
        assert [one != other for one, other in zip(before, after, strict=True)] == [True, True]
        run("run", "study.yaml", "--no-calibration", "--plain")
        assert models_in(folder)["own"] != model
    finally:
        spread(folder, 1.0)
    assert (difference(str(model), "token"), score(str(model))) == before


def test_other_code_of_a_sampler(folder: Path) -> None:
    asked = "my_sampler:Narrow", "--trust-code", "corpus.source=markov", "evaluation.max_windows=5"
    before = score(*asked)
    try:
        spread(folder, 2.0)
        assert score(*asked) != before
    finally:
        spread(folder, 1.0)
    assert score(*asked) == before


@pytest.mark.extended
def test_a_cache_of_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(model: str, cache: str) -> None:
        where = f"pretrained={models_in(folder)[model]},num_samples=4"
        told = ("--tasks", "stdlib_choice", "--limit", "2", "--use_cache", cache)
        monkeypatch.setattr(
            sys, "argv", ["calm-bench", "lm-eval", "--model", "calm-bench", "--model_args", where, *told]
        )
        app(sys.argv[1:], standalone_mode=False)

    asked("own", "answers")
    with pytest.raises(ConfigurationError, match=r"--use_cache (\S+)$") as refused:
        asked("token", "answers")
    asked("token", str(refused.value).rpartition(" ")[2])
    try:
        spread(folder, 2.0)
        with pytest.raises(ConfigurationError, match="answers of another model"):
            asked("own", "answers")
    finally:
        spread(folder, 1.0)
