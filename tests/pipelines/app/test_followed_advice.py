"""What doctor, export, push and --notify advise helps: what stands in the message itself is typed, and works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from typer.testing import CliRunner

from calm_bench import bf16_speed
from calm_bench.config import LanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.overrides import ConfigurationError
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from pipelines.app import cli, doctor
from pipelines.app.cli import app
from pipelines.search.trial_storage import VARIABLE, Database, trial_storage
from pipelines.study.config import Execution


def call(*words: str) -> str | None:
    """The message with which a command failed, None where it did not."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "400"})
    return None if done.exit_code == 0 else str(done.exception)


def advised(pattern: str, message: str | None) -> re.Match[str]:
    assert message is not None, "it went through"
    found = re.search(pattern, message)
    assert found is not None, message
    return found


def finding(check: Callable[[], Iterator[doctor.Finding]]) -> doctor.Finding:
    (found,) = check()
    return found


@pytest.mark.parametrize(("ratio", "pattern"), [(1.9, r"([a-z.]+=bf16)"), (0.03, r"leave ([a-z.]+) at (auto)")])
def test_the_number_format_of_the_doctor_is_a_setting(
    ratio: float, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_speed, "bf16_speedup", lambda: ratio)
    named = re.findall(pattern, finding(doctor._bf16).text)
    assert named
    settings = ["=".join(found) if isinstance(found, tuple) else found for found in named]
    assert call("plan", "smoke", *settings) is None


def test_a_store_that_the_doctor_refuses_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = finding(lambda: doctor._store(tmp_path / "file" / "runs"))
    option = advised(r"with (--store), or", refused.text)[1]
    assert refused.level == "error"
    assert option in _options("doctor")
    assert finding(lambda: doctor._store(tmp_path / "runs")).level != "error"


def test_little_memory_is_enough_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 2**60)
    option = advised(r"(--local) does without it", finding(doctor._machine).text)[1]
    assert option in _options("run")


def _options(name: str) -> list[str]:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return [option for parameter in command.params for option in parameter.opts]


def test_trials_in_no_database_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mysql://host/db")
    refused = finding(doctor._trials)
    assert refused.level == "error"
    address = advised(r"an address such as (\S+); unset, trials are kept in a journal", refused.text)[1]
    assert isinstance(trial_storage(Execution(optuna_storage=address), tmp_path, "study"), Database)
    monkeypatch.delenv(advised(r"^(\w+): ", refused.text)[1])
    assert finding(doctor._trials).level == "ok"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that was never trained."""
    config = LanguageModel(kind="token", hidden_size=16, intermediate_size=16, num_layers=1, num_attention_heads=2)
    build_language_model(config, 257, None, 0).save(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model" / "tokenizer")
    return tmp_path / "model"


def test_an_export_into_a_folder_that_is_not_empty(model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    message = call("export", str(model), "--output", str(tmp_path / "full"))
    option = advised(r"is not empty: name a new folder with (--output)$", message)[1]
    assert call("export", str(model), option, str(tmp_path / "new")) is None
    assert (tmp_path / "new" / "config.json").is_file()


def test_a_repository_is_written_as_the_message_says(model: Path) -> None:
    written = advised(r"write it as (OWNER/NAME)$", call("push", str(model), "calm", "--dry-run"))[1]
    assert call("push", str(model), written, "--dry-run") is None


def test_a_program_that_is_told_the_end_is_looked_for_before(tmp_path: Path) -> None:
    program = tmp_path / "tell"
    message = call("run", "smoke", "--notify", str(program), "--store", str(tmp_path / "runs"))
    path = advised(r"there is no program (\S+) to start: give its whole path", message)[1]
    assert not (tmp_path / "runs").exists(), "before anything runs"
    os.symlink(sys.executable, path)
    from pipelines.app.notify import notifying

    said: list[str] = []
    with notifying(f"{path} -c pass", "smoke", [], said.append):
        pass
    assert said == []


@pytest.mark.parametrize("command", ["compare", "context-sweep", "sample-size"])
def test_a_model_without_a_tokenizer_is_scored_with_the_one_that_is_named(
    model: Path, tmp_path: Path, command: str
) -> None:
    shutil.rmtree(model / "tokenizer")
    others = {"compare": [str(model)], "sample-size": ["--error", "1"], "context-sweep": ["--lengths", "32,64"]}
    text = ["corpus.source=markov", "corpus.markov.num_documents=200", "corpus.markov.document_length=120"]
    asked = [command, str(model), *others[command], *text, "evaluation.context_length=64", "evaluation.num_samples=4"]
    asked += ["evaluation.first_position=32", "--store", str(tmp_path / "runs")]
    option = advised(r"holds no tokenizer, .* or name one \((--tokenizer),", call(*asked))[1]
    refused = call(*asked, option, "bytes")
    # A model that was never trained has been scored then.
    assert refused is None or refused.startswith("--error: the pilot's BrierLM is 0")


def test_what_an_error_of_the_machine_names_is_there() -> None:
    named = " ".join(cli.WAYS_OUT.values())
    commands = advised(r"can be read \((.+) (--\w+) ELSEWHERE\)", named)
    for name in commands[1].split(", "):
        assert _options(name)
    assert commands[2] in _options("export")
    for option in advised(r"give another place \(([^)]+)\)", named)[1].split(", "):
        assert option in [known for name in ("run", "report", "probe", "eval") for known in _options(name)]


def test_where_an_error_came_from_is_shown_by_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is typed into a shell, signs of its own included."""
    given = ["run", "smoke", "search.parameters.0.include=[token, K=4]", "--store", "it's here"]
    monkeypatch.setattr(sys, "argv", ["calm-bench", *given])
    words = shlex.split(advised(r"\((calm-bench .+) shows where\)$", cli._told(KeyError("x"))[0])[1])
    assert words[2:] == given
    options = [option for parameter in typer.main.get_command(app).params for option in parameter.opts]
    assert words[1] in options


def test_packages_are_installed_as_the_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["no-such-package>=1,<2", "pytest>=9999"])
    command = advised(r"install with: (pip install .+)$", finding(doctor._packages).text)[1]
    named = [Requirement(word) for word in shlex.split(command)[2:]]
    assert [(one.name, str(one.specifier)) for one in named] == [("no-such-package", "<2,>=1"), ("pytest", ">=9999")]


def test_words_of_a_shell_are_given_to_the_shell(tmp_path: Path) -> None:
    from pipelines.app.notify import notifying

    message = call("run", "smoke", "--notify", "if true; then exit 3; fi", "--store", str(tmp_path / "runs"))
    command = advised(r"as in --notify '(.+)'$", message)[1].replace("...", "if true; then exit 3; fi")
    said: list[str] = []
    with notifying(command, "smoke", [], said.append):
        pass
    assert said == ["--notify: sh ended with 3"]


def test_lengths_of_context_are_written_as_the_message_says() -> None:
    from pipelines.app.commands.context_sweep import _lengths

    with pytest.raises(ConfigurationError) as refused:
        _lengths("short", 256, 4)
    lengths = advised(r"such as ([\d,]+), not", str(refused.value))[1]
    assert [length for length in _lengths(lengths, 256, 4) if length % 4 == 0] == [32, 128]
