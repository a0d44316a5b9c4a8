"""A store that version 0.1.0 left behind is opened, listed, shown, ended and reported by this one."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PACKED = Path(__file__).parents[2] / "data" / "store-0.1.0.tar.xz"
FINISHED, UNFINISHED = "finished-9728792a9f7b6b87", "unfinished-5f0214ac97b41bf8"
KILLED = "autoencoder/11eb800ed517a036"
TIMES = {"wall_time_s", "total_wall_time_s", "tokens_per_second", "generated_tokens_per_second", "generation"}
SCORES = {"brierlm", *(f"brier_{n}" for n in (1, 2, 3, 4))}
Rows = dict[str, dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(PACKED) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


def calm_bench(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.app.cli import main; main()", *arguments, "--store", "runs"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(text: str) -> Rows:
    return {row["label"]: row for row in csv.DictReader(io.StringIO(text))}


def numbers(row: dict[str, str], *but: str) -> dict[str, str]:
    """All of a row of that version but what says where the store lies."""
    return {name: value for name, value in row.items() if name not in {"model_folder", *but}}


def identities(folder: Path) -> set[str]:
    return {path.name for kind in (folder / "runs" / "stages").iterdir() for path in kind.iterdir()}


@pytest.mark.slow
def test_what_is_finished_is_listed_shown_and_reported_as_it_was(folder: Path) -> None:
    before = identities(folder)
    listed = json.loads(calm_bench(folder, "store", "ls", "--json"))["stages"]
    assert {stage["identity"] for stage in listed} == {*before, KILLED.partition("/")[2]}
    assert {name for stage in listed for name in stage["studies"]} == {"finished", "unfinished"}
    assert [stage["identity"] for stage in listed if stage["state"] == "unfinished"] == [KILLED.partition("/")[2]]
    calm_bench(folder, "store", "verify")

    expected = rows((folder / "expected" / "finished.csv").read_text())
    shown = rows(calm_bench(folder, "leaderboard", "finished", "--format", "csv"))
    assert list(shown) == list(expected) == ["token", "K=4"]
    for label, row in expected.items():
        # A version may add columns; what it had, it has, to the last digit.
        assert numbers({name: shown[label][name] for name in row}) == numbers(row)

    page = folder / "page.html"
    calm_bench(folder, "report", "finished", "--output", str(page))
    assert "K=4" in page.read_text(encoding="utf-8")
    assert identities(folder) == before


@pytest.mark.extended
def test_what_was_killed_ends_under_todays_revisions(folder: Path) -> None:
    """Trainings have a raised revision since, so none of 0.1.0 stands for one of today; text and tokens do."""
    before = identities(folder)
    texts = {kind: sorted((folder / "runs" / "stages" / kind).iterdir()) for kind in ("corpus", "tokens")}
    expected = rows((folder / "expected" / "unfinished.csv").read_text())
    calm_bench(folder, "run", "unfinished.yaml", "--local")
    assert {path.name for path in (folder / "runs" / "studies").iterdir()} == {FINISHED, UNFINISHED}
    assert texts == {kind: sorted((folder / "runs" / "stages" / kind).iterdir()) for kind in texts}
    # What was there stays: two autoencoders, three language models, their evaluations and samples came.
    assert before < identities(folder)
    assert len(identities(folder) - before) == 2 + 3 * 3
    for name in ("report.html", "leaderboard.png", "leaderboard.md"):
        assert (folder / "runs" / "studies" / UNFINISHED / name).stat().st_size > 0

    shown = rows(calm_bench(folder, "leaderboard", "unfinished", "--format", "csv"))
    assert shown.keys() == expected.keys() == {"token", "K=2", "K=4"}
    varying = {*TIMES, *SCORES, *(f"{name}_se" for name in SCORES), "autoencoder_accuracy", "rank", "model_identity"}
    for label, promised in expected.items():
        trained = shown[label]
        assert numbers({name: trained[name] for name in promised}, *varying) == numbers(promised, *varying)
        for score in SCORES:
            # Sums in another order round otherwise, and a training of 160 steps carries that on.
            assert float(trained[score]) == pytest.approx(
                float(promised[score]), abs=2 * float(promised[f"{score}_se"])
            )
