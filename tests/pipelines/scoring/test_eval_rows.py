"""Scores of ``eval`` beside our own rows: the same protocol, what is known of the cost, and no more."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calm_bench as cb
from pipelines.app.cli import main
from pipelines.results.checks import problems_of
from pipelines.results.entry import OTHER, Entry
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, read_board
from pipelines.results.merging import merged
from pipelines.scoring.eval_rows import add_rows
from tests.pipelines.scoring.test_exporting import SMALL

pytestmark = pytest.mark.slow

CODE = """
import numpy as np

class Uniform:
    vocab_size = 257
    chunk_size = 1

    def sample(self, contexts, num_samples, horizon, seeds):
        return np.stack([np.random.default_rng(seed).integers(0, 257, (num_samples, horizon)) for seed in seeds])

class Priced(Uniform):
    parameters = 7
    training_flops = 3e9
    inference_flops_per_token = 257

class Negative(Uniform):
    training_flops = -1.0
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "s"


@pytest.fixture(scope="module")
def study(store: Path) -> cb.StudyResult:
    settings = [*SMALL, "tracking.enabled=false", "samples.num_prompts=1"]
    return cb.Study.from_yaml("smoke", *settings, store=store).run(local=True, quiet=True)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    name = f"rows_{request.node.name.partition('[')[0]}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def as_scored(study: cb.StudyResult) -> list[str]:
    """The text and the protocol of the study, as settings of ``eval``."""
    names = ("context_length=64", "first_position=16", "max_windows=12", "num_samples=4")
    text = ["corpus.source=markov", "corpus.markov.num_documents=200", "corpus.markov.document_length=400"]
    return text + [f"evaluation.{name}" for name in names]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calm-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def evaluate(monkeypatch: pytest.MonkeyPatch, model: str, store: Path, *settings: str) -> int:
    return command(
        monkeypatch, "eval", model, "--store", str(store), "--no-track", "--rows", "rows.json",
        "--protocols", "matched", *settings,
    )  # fmt: skip


def test_a_sampler_of_ones_own_stands_beside_the_studys_rows(
    own: str,
    study: cb.StudyResult,
    store: Path,
    as_scored: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("Uniform", "Priced"):
        assert evaluate(monkeypatch, f"{own}:{name}", store, "--trust-code", *as_scored) == 0
    found = {row.label: row for row in read_board(Path("rows.json"))}
    assert set(found) == {f"{own}:Uniform", f"{own}:Priced"}
    plain, priced = found[f"{own}:Uniform"], found[f"{own}:Priced"]
    assert {row.protocol_hash for row in found.values()} == {row.protocol_hash for row in study}
    assert (plain.kind, plain.text, plain.compute, plain.parameters) == (OTHER, "markov, split test", None, None)
    assert (priced.parameters, priced.compute) == (7, (3e9, 0.0, 3e9, 257.0))
    assert plain.model_identity != priced.model_identity
    assert problems_of(Leaderboard(found.values())) == []
    capsys.readouterr()
    assert command(monkeypatch, "leaderboard", "--store", str(store), "--merge", "rows.json", "--format", "json") == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert {row["label"] for row in group["entries"]} == {"token", "K=2", *found}
    front = {row["label"] for row in group["pareto_front"]["total_training_flops"]}
    assert plain.label not in front
    assert command(monkeypatch, "report", "--merge", "rows.json", "--output", "page.html") == 0
    assert plain.label in Path("page.html").read_text(encoding="utf-8")


def test_a_model_of_the_store_keeps_its_row(
    own: str, study: cb.StudyResult, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, "K=2", store) == 0
    (row,) = read_board(Path("rows.json"))
    (before,) = [one for one in study if one.label == "K=2"]
    assert row.model_dump(exclude={"tasks"}) == before.model_dump(exclude={"tasks"})
    assert merged([("store", study), ("file", [row])]).remarks == ()
    # Over bytes of the same text it is another measurement of the same model.
    assert evaluate(monkeypatch, "K=2", store, "--protocols", "bytes") == 0
    found = read_board(Path("rows.json"))
    assert [one.compute for one in found] == [before.compute] * 2
    assert len({one.protocol_hash for one in found}) == 2


def test_a_copy_elsewhere_is_no_row_of_the_store(
    own: str, study: cb.StudyResult, store: Path, as_scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size and inference FLOPs are known; what its training cost, the folder does not tell."""
    assert command(monkeypatch, "export", "K=2", "--store", str(store)) == 0
    assert evaluate(monkeypatch, "K=2-hf", store, *as_scored) == 0
    (row,) = read_board(Path("rows.json"))
    (before,) = [one for one in study if one.label == "K=2"]
    assert (row.kind, row.chunk_size, row.head) == ("calm", 2, "energy")
    assert (row.label, row.model_folder) == ("K=2-hf", "K=2-hf")
    assert (row.brier, row.protocol_hash) == (before.brier, before.protocol_hash)
    assert (row.parameters, row.autoencoder_parameters) == (before.parameters, before.autoencoder_parameters)
    assert row.inference_flops_per_token is not None
    assert (row.training_flops, row.total_training_flops, row.tokens) == (None, None, None)
    assert row.model_identity != before.model_identity


def test_a_cost_that_is_no_number_is_refused_before_anything_is_scored(
    own: str, store: Path, as_scored: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, f"{own}:Negative", store, "--trust-code", *as_scored) == 2
    assert "Negative.training_flops is -1.0, and a positive number is wanted" in capsys.readouterr().err
    assert not Path("rows.json").exists()


def test_rows_are_added_and_replaced(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.json", [make_entry(model_identity=name) for name in ("a", "b")]
    path.write_text(add_rows(path, rows).to_json())
    new: list[Any] = [rows[0].model_copy(update={"brierlm": 1.0}), make_entry(model_identity="c")]
    found = {row.model_identity: row for row in add_rows(path, new)}
    assert found == {"a": new[0], "b": rows[1], "c": new[1]}
    path.write_text("{}")
    with pytest.raises(LeaderboardError, match="not a leaderboard"):
        add_rows(path, rows)


WEIGHTED = """
import os
import numpy as np

class Weighted:
    vocab_size = 257
    chunk_size = 1

    def __init__(self):
        self.table = np.load(os.environ["WHERE_THE_WEIGHTS_LIE"])

    def sample(self, contexts, num_samples, horizon, seeds):
        drawn = [np.random.default_rng(seed).choice(257, (num_samples, horizon), p=self.table) for seed in seeds]
        return np.stack(drawn)
"""


def test_other_weights_are_another_model(
    own: str, store: Path, as_scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose code is the same: weights of a hub, or of a place that an option names."""
    Path(f"{own}_weights.py").write_text(WEIGHTED)
    monkeypatch.setenv("WHERE_THE_WEIGHTS_LIE", "w.npy")
    for letters in (5, 20, 5):
        table = np.where((np.arange(257) >= 97) & (np.arange(257) < 97 + letters), 1 / letters, 0.0)
        np.save("w.npy", table)
        assert evaluate(monkeypatch, f"{own}_weights:Weighted", store, "--trust-code", *as_scored) == 0
    rows = read_board(Path("rows.json"))
    assert len({row.model_identity for row in rows}) == len(rows) == 2
