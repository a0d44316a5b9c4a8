"""Commands on a store without a study print the command that runs one there; that is typed, and they work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.app.ui_servers import UiServers
from pipelines.store.opening import open_store
from tests.faults.small_study import STUDY, TRAINING

pytestmark = pytest.mark.slow

SHORT = {"training": TRAINING | {"num_steps": 20}}
SMALL = STUDY | {
    "corpus": {"source": "markov", "markov": {"num_documents": 100, "document_length": 200}},
    "model": STUDY["model"] | SHORT,
    "search": {
        "parameters": [
            {"name": "seed", "choices": {"one": {"model.kind": "token"}, "two": {"model.kind": "token", "seed": 1}}}
        ]
    },
    "execution": {"backend": "local"},
}
MODELS = ("faults/one", "faults/two")
COMMANDS = {
    "leaderboard": ("leaderboard",),
    "leaderboard of a study": ("leaderboard", "faults"),
    "headline": ("leaderboard", "--headline"),
    "picture": ("leaderboard", "--picture", "a.svg"),
    "report": ("report",),
    "watch": ("watch", "--once"),
    "compare": ("compare", *MODELS),
    "generate": ("generate", MODELS[0], "--prompt", "ab", "--tokens", "4"),
    "eval": ("eval", MODELS[0], "--no-track", "--protocols", "matched"),
    "export": ("export", MODELS[0], "--output", "exported"),
    "context-sweep": ("context-sweep", MODELS[0], "--lengths", "16,32"),
    "sample-size": ("sample-size", MODELS[0], "--error", "1"),
    "mlflow sync": ("mlflow", "sync"),
    "store ls": ("store", "ls"),
    "store verify": ("store", "verify"),
    "store gc": ("store", "gc"),
}
EMPTY = {"headline", "picture", "leaderboard of a study"}
"""Commands that ask for one in a store that is there and has no study too, where others say that it is empty."""


def call(*arguments: str) -> str | None:
    """The message with which the command failed; None where it did not."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    return None if done.exit_code == 0 else str(done.exception)


def advised(message: str | None) -> list[str]:
    """The words of the command in a message."""
    found = re.search(r"calm-bench (run --store .+) runs one there, and (--store) names another$", str(message))
    assert found is not None, message
    return shlex.split(found[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose store was made by the command that the commands of :data:`COMMANDS` printed without it."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "study.yaml").write_text(yaml.safe_dump(SMALL))
    store, empty = str(folder / "a store"), folder / "empty"
    empty.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        told = {name: advised(call(*words, "--store", "a store")) for name, words in COMMANDS.items()}
        with (
            UiServers(open_store("a store"), dashboard=False) as servers,
            pytest.raises(Exception, match="no study") as no,
        ):
            servers.start(folder)
        told["ui"] = advised(str(no.value))
        assert {name for name, words in told.items() if words != ["run", "--store", store]} == set()
        assert {advised(call(*COMMANDS[name], "--store", "empty"))[-1] for name in EMPTY} == {str(empty)}
        # Of the study that this runs no test would see the end: it is asked for a smaller one.
        run, *rest = told["report"]
        assert call(run, "study.yaml", *rest, "--no-calibration", "--plain") is None
    return folder


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"mlflow sync"}))
def test_it_works_after_that(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(folder)
    message = call(*COMMANDS[name], "--store", "a store")
    # What was hardly trained has no score from which a size would follow.
    assert message is None or message.startswith("the pilot's BrierLM is 0"), message


def test_a_study_of_the_command_may_be_left_out() -> None:
    """There is one that is run then."""
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    (study,) = [parameter for parameter in command.params if parameter.name == "study"]
    assert not study.required
