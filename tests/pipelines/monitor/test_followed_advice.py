"""What is advised while a study runs or is watched helps: it is taken out of the message itself and done."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Literal

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.execution import events
from pipelines.monitor.display import PlainProgress
from pipelines.monitor.recording import Recording
from pipelines.monitor.tracker import Tracker
from pipelines.monitor.watching import poll
from pipelines.store.study_record import save_study
from pipelines.study.catalogue import resolve_study
from pipelines.study.graph import stages_for
from pipelines.study.trial import TrialOutcome


def advised(pattern: str, message: object) -> re.Match[str]:
    found = re.search(pattern, str(message))
    assert found is not None, message
    return found


def options(name: str) -> list[str]:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize("name", ["mine", "smoke"])
def test_a_study_without_a_word_of_its_driver_goes_on_by_the_command(name: str, tmp_path: Path) -> None:
    """It may be of a file, or of settings beside a name: what is in the store says which it is."""
    study = resolve_study("smoke", [f"name={name}", "seed=7", "corpus.source=markov"])
    folder = tmp_path / "a store" / "studies" / f"{name}-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "trials.json").write_text('[{"number": 0, "state": "open"}]')
    save_study(folder, study)
    words = shlex.split(advised("calm-bench (.+) continues", poll(folder, folder.parents[1]).note)[1])
    assert words[0] == "run"
    assert resolve_study(words[1]) == study
    done = CliRunner().invoke(app, ["plan", *words[1:]])
    assert done.exit_code == 0, done.exception
    # What is damaged cannot be run; the name may be one of those that come along.
    (folder / "study.yaml").write_text("[")
    assert f"calm-bench run {name} --store" in poll(folder, folder.parents[1]).note


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "studies" / "smoke-0123456789abcdef"
    folder.mkdir(parents=True)
    tracker = Tracker()
    recording = Recording(tracker, write_s=0.01, heartbeat_s=0.05)
    tracker.handle(events.StudyStarted("smoke", "ab", folder, 4))
    recording.start(folder)
    recording.close(KeyboardInterrupt())
    (tmp_path / "runs").rename(tmp_path / "moved")
    option = advised(r"is gone: (--\w+) says where the store is now", poll(folder, tmp_path / "runs").note)[1]
    watched = CliRunner().invoke(app, ["watch", option, str(tmp_path / "moved"), "--once"])
    assert "smoke" in watched.output
    assert not isinstance(watched.exception, ConfigurationError)


def test_a_file_for_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PlainProgress(Console(file=io.StringIO()), tmp_path / "nowhere" / "log")
    option = advised(r"^(--[\w-]+) \S+ cannot be .*: name a file in a folder that is there$", refused.value)[1]
    assert option in options("run")
    with PlainProgress(Console(file=io.StringIO()), tmp_path / "log") as progress:
        progress.message("a line")
    assert "a line" in (tmp_path / "log").read_text()


def test_settings_for_a_training_on_a_plateau() -> None:
    file = io.StringIO()
    terms = {"loss": 2.0, "fidelity": 4.0, "diversity": 2.0, "unconditional": 2.0, "plateau": 1.0}
    stage = stages_for(Experiment())["language_model"]
    with PlainProgress(Console(file=file, width=400)) as progress:
        progress.handle(events.StageStarted(stage, Path("work")))
        progress.handle(events.StageProgress(stage, 300, 9000, terms))
    section, *names = advised(
        r"try another (model\.training)\.(\w+), more (\w+) there or a larger (\w+)\n", file.getvalue()
    ).groups()
    before = resolve_study("smoke").model.training
    for name in names:
        value = 2 * getattr(before, name)
        assert getattr(resolve_study("smoke", [f"{section}.{name}={value}"]).model.training, name) == value


def test_a_study_that_ends_with_failed_trials_says_how_to_try_them_again() -> None:
    def told(state: Literal["failed", "invalid"]) -> str:
        file = io.StringIO()
        outcome = TrialOutcome(0, "token", {}, state, "the server was away")
        with PlainProgress(Console(file=file, width=400)) as progress:
            progress.handle(events.StudyStarted("smoke", "ab", Path("store"), 1))
            progress.handle(events.StageQueued(stages_for(Experiment())["corpus"]))
            progress.handle(events.TrialFailed(outcome))
            progress.handle(events.StudyFinished((outcome,)))
        return file.getvalue()

    option = advised(r"study finished: 0 complete, 1 failed; (--[\w-]+) tries failed ones again\n", told("failed"))[1]
    assert option in options("run")
    assert "study finished: 0 complete, 1 failed\n" in told("invalid")


def test_failed_trials_are_tried_again_and_more_are_added() -> None:
    file = io.StringIO()
    failed = TrialOutcome(0, "token", {}, "failed", "it does not add up", cached=True)
    with PlainProgress(Console(file=file, width=400)) as progress:
        progress.handle(events.StudyStarted("smoke", "ab", Path("store"), 1))
        progress.handle(events.TrialFailed(failed))
        progress.handle(events.StudyFinished((failed,)))
    option, setting = advised(
        r"nothing was run; (--[\w-]+) tries failed ones again; a larger (\S+) or more", file.getvalue()
    ).groups()
    assert option in options("run")
    assert resolve_study("smoke", ["search.sampler=random", f"{setting}=9"]).search.num_trials == 9
