"""What a message about a damaged file advises is done, and all is as it was; so is what mends itself."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.store.store import Store
from tests.faults.small_study import STUDY, TRAINING, Outcome, flip_bit, outcome_in

pytestmark = pytest.mark.slow

SHORT = {"training": TRAINING | {"num_steps": 20}}
SMALL = STUDY | {
    "corpus": {"source": "markov", "markov": {"num_documents": 100, "document_length": 200}},
    "autoencoder": STUDY["autoencoder"] | SHORT,
    "model": STUDY["model"] | SHORT,
    "execution": {"backend": "local", "store": "runs"},
}
RUN = ("run", "study.yaml", "--no-calibration", "--plain")
COMMANDS = {
    "run": RUN,
    "leaderboard": ("leaderboard", "--store", "runs"),
    "report": ("report", "--store", "runs"),
    "compare": ("compare", "K=2", "token", "--store", "runs"),
    "generate": ("generate", "token", "--store", "runs", "--prompt", "ab", "--tokens", "4"),
    "ls": ("store", "ls", "--store", "runs"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and the store ``runs`` in which that study has ended."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.yaml").write_text(yaml.safe_dump(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(*RUN) is None
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be damaged."""
    whole = tmp_path / "copy"
    shutil.copytree(finished, whole)
    monkeypatch.chdir(whole)
    return whole


def call(*arguments: str) -> str | None:
    """The message with which the command failed; None where it did not."""
    done = CliRunner().invoke(app, arguments)
    if done.exit_code == 0:
        return None
    assert done.exception is not None
    return str(done.exception)


def outcome(folder: Path) -> Outcome:
    return outcome_in(Store(folder / "runs"))


def stage_of(folder: Path, kind: str, label: str = "token") -> Path:
    """The finished stage of ``kind`` in the trial ``label``."""
    (file,) = folder.glob("runs/studies/*/trials.json")
    (trial,) = [trial for trial in json.loads(file.read_text()) if trial["label"] == label]
    return folder / "runs" / "stages" / kind / str(trial["stages"][kind])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other(path: Path) -> None:
    """JSON as before, with one number that was not published."""
    content: dict[str, Any] = json.loads(path.read_text())
    content["added"] = 1
    path.write_text(json.dumps(content))


def flip(path: Path) -> None:
    flip_bit(path, -9)


def follow(folder: Path, message: str) -> None:
    """Remove what the message says and run the study again."""
    assert "again" in message, message
    named = re.search(r"(\S+) is damaged", message)
    assert named is not None, message
    at = (folder / named[1]).resolve()
    removed = re.search(r"remove (it|its folder|the stage's folder)\b", message)
    if removed is not None and "or remove" not in message:
        target = at if removed[1] == "it" else at.parent
        assert target.is_relative_to(folder / "runs" / "stages"), message
        shutil.rmtree(target)
    assert call(*RUN) is None


@pytest.mark.parametrize(
    ("kind", "file", "damage", "command"),
    [
        ("language_model", "config.json", cut, "compare"),
        ("language_model", "files.json", cut, "compare"),
        ("language_model", "model/config.json", cut, "compare"),
        ("language_model", "model/model.safetensors", cut, "compare"),
        ("language_model", "model/model.safetensors", flip, "compare"),
        ("language_model", "model/model.safetensors", flip, "generate"),
        ("language_model", "model/tokenizer/calm_tokenizer.json", cut, "generate"),
        ("language_model", "result.json", cut, "run"),
        ("language_model", "result.json", other, "run"),
        ("language_model", "provenance.json", cut, "report"),
        ("evaluation", "config.json", cut, "compare"),
        ("evaluation", "result.json", cut, "run"),
        ("evaluation", "result.json", other, "run"),
        ("tokens", "result.json", other, "run"),
        ("corpus", "result.json", cut, "run"),
    ],
)
def test_a_damaged_stage(finished: Path, folder: Path, kind: str, file: str, damage: Any, command: str) -> None:
    damage(stage_of(folder, kind) / file)
    message = call(*COMMANDS[command])
    assert message is not None, f"{command} reads it"
    follow(folder, message)
    assert outcome(folder) == outcome(finished)
    assert call(*COMMANDS[command]) is None
    assert call("store", "verify", "--store", "runs") is None


def test_edited_weights_in_the_store(finished: Path, folder: Path) -> None:
    weights = stage_of(folder, "language_model") / "model" / "model.safetensors"
    published = weights.read_bytes()
    flip(weights)
    edited = weights.read_bytes()
    # What has ended is not read again: its row says what the published weights scored, which is still so.
    assert call(*RUN) is None
    assert outcome(folder).leaderboard == outcome(finished).leaderboard
    assert weights.read_bytes() == edited
    # A name means what was published, a path what lies there.
    message = call(*COMMANDS["generate"])
    assert message is not None
    assert "is damaged" in message
    assert call("generate", str(weights.parent), *COMMANDS["generate"][2:]) is None
    # A stage that reads the model compares it with what was published, and it is trained again.
    assert call(*RUN, "name=more", "evaluation.num_samples=5") is None
    assert weights.read_bytes() == published
    assert call("store", "verify", "--store", "runs") is None


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("trials.json", "report"),
        ("trials.json", "ls"),
        ("study.yaml", "report"),
        ("leaderboard.json", "leaderboard"),
        ("leaderboard.json", "report"),
        ("leaderboard.json", "compare"),
    ],
)
def test_a_damaged_record_of_a_study(finished: Path, folder: Path, file: str, command: str) -> None:
    (path,) = folder.glob(f"runs/studies/*/{file}")
    cut(path)
    message = call(*COMMANDS[command])
    assert message is not None
    assert str(path.relative_to(folder)) in message
    assert "run the study again, which writes it anew" in message
    assert call(*RUN) is None
    assert call(*COMMANDS[command]) is None
    assert outcome(folder) == outcome(finished)


def test_what_verify_says_to_remove(finished: Path, folder: Path) -> None:
    for kind in ("corpus", "tokens", "language_model", "evaluation"):
        flip(max(stage_of(folder, kind).rglob("*.*"), key=lambda path: path.stat().st_size))
    done = CliRunner().invoke(app, ["store", "verify", "--store", "runs"], env={"COLUMNS": "400"})
    assert done.exit_code == 1
    named = re.findall(r"remove (\S+);", done.output)
    assert len(named) == 4
    for path in named:
        shutil.rmtree(path)
    assert call(*RUN) is None
    assert outcome(folder) == outcome(finished)
    assert call("store", "verify", "--store", "runs") is None


def test_the_command_that_verify_gives_for_stages_that_are_gone(finished: Path, folder: Path) -> None:
    for kind in ("tokens", "language_model"):
        shutil.rmtree(stage_of(folder, kind))
    done = CliRunner().invoke(app, ["store", "verify", "--store", "runs"], env={"COLUMNS": "400"})
    assert done.exit_code == 1
    assert "has ended with 2 stages that are not there: language_model-" in done.output
    (command,) = re.findall(r"calm-bench (run \S+ --store \S+) makes them again", done.output)
    assert call(*command.split()) is None
    assert outcome(folder) == outcome(finished)
    assert call("store", "verify", "--store", "runs") is None


@pytest.mark.parametrize("way", ["brought", "made again"])
def test_a_model_that_is_not_there(finished: Path, folder: Path, way: str) -> None:
    shutil.rmtree(stage_of(folder, "language_model"))
    told = str(call(*COMMANDS["generate"]))
    named = re.search(r"bring (stages/\w+/\w+) from where .*, or calm-bench (run \S+ --store \S+) makes", told)
    assert named is not None, told
    if way == "brought":
        shutil.copytree(finished / "runs" / named[1], folder / "runs" / named[1])
    else:
        assert call(*named[2].split()) is None
    assert call(*COMMANDS["generate"]) is None
    assert outcome(folder) == outcome(finished)


def test_stages_of_a_study_without_its_file_are_brought(finished: Path, folder: Path) -> None:
    lost = stage_of(folder, "tokens")
    shutil.rmtree(lost)
    (file,) = (folder / "runs" / "studies").glob("*/study.yaml")
    file.unlink()
    done = CliRunner().invoke(app, ["store", "verify", "--store", "runs"], env={"COLUMNS": "400"})
    assert done.exit_code == 1
    assert "bring them from where the study was run" in done.output
    shutil.copytree(stage_of(finished, "tokens"), lost)
    assert call("store", "verify", "--store", "runs") is None


@pytest.mark.parametrize("kind", ["tokens", "corpus"])
def test_text_that_is_damaged_is_made_anew_for_a_score(finished: Path, folder: Path, kind: str) -> None:
    asked = ("eval", "token", "--store", "runs", "--no-track", "--protocols", "matched,words")
    for path in stage_of(folder, kind).rglob("test*/**/*.arrow" if kind == "tokens" else "test.arrow"):
        cut(path)
    with pytest.warns(UserWarning, match=r"is damaged: test.* bytes instead of .*It is made anew"):
        assert call(*asked) is None
    assert call("store", "verify", "--store", "runs") is None
    assert outcome(folder) == outcome(finished)
