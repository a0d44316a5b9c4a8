"""What commands that read results advise helps: what is taken from the message itself is typed, and goes through."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from tests.pipelines.report.conftest import StoreBuilder

BOARD = ("leaderboard", "--store", "runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the store ``runs``, in which two studies have ended."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        builder = StoreBuilder(folder / "runs")
        builder.study(4)
        builder.study(3, name="other", protocol_hash="0123456789abcdef")
        (folder / "rows.json").write_text(call(*BOARD, "--format", "json")[1])
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def call(*arguments: str) -> tuple[str | None, str]:
    """The message with which a command failed, None where it did not, and what it printed."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return (None if done.exit_code == 0 else str(done.exception)), done.stdout


def typed(*words: str) -> Callable[[re.Match[str]], list[Sequence[str]]]:
    """One command, ``{1}`` in which is what the message gave."""
    return lambda found: [[word.format(found[0], *found.groups()) for word in words]]


def each(*words: str) -> Callable[[re.Match[str]], list[Sequence[str]]]:
    """A command for each of several names that the message lists by comma."""
    return lambda found: [[word.format(name) for word in words] for name in found[1].split(", ")]


@pytest.mark.parametrize(
    ("given", "advice", "followed"),
    [
        ([*BOARD, "--sort", "brierlm:up"], "after the colon stands (asc) or (desc)", typed(*BOARD, "--sort", "K:{1}")),
        ([*BOARD, "--sort", "brierlm:up"], "after the colon stands (asc) or (desc)", typed(*BOARD, "--sort", "K:{2}")),
        ([*BOARD, "--sort", "brierln"], r"did you mean '(\w+)'", typed(*BOARD, "--sort", "{1}")),
        ([*BOARD, "--columns", "K,hed"], r"did you mean '(\w+)'", typed(*BOARD, "--columns", "K,{1}")),
        ([*BOARD, "--columns", "qqq"], r"known: ([\w, ]+)$", each(*BOARD, "--columns", "{0}")),
        ([*BOARD, "--pareto", "brierlm"], r"such as (\S+)$", typed(*BOARD, "--pareto", "{1}")),
        ([*BOARD, "--pareto", "head,K"], r"these have one: ([\w, ]+)$", each(*BOARD, "--pareto", "{0},brierlm")),
        ([*BOARD, "--filter", "K~4"], r"as (\S+) or '(.+)'$", typed(*BOARD, "--filter", "{1}", "--filter", "{2}")),
        ([*BOARD, "--filter", "K~4"], "one of (= != < <= > >=)", lambda found: [
            [*BOARD, "--filter", f"K{sign}2"] for sign in found[1].split()
        ]),
        ([*BOARD, "--filter", "hed=energy"], r"did you mean '(\w+)'", typed(*BOARD, "--filter", "{1}=energy")),
        (
            [*BOARD, "--headline", "--format", "csv"],
            "or by (--format) (json)",
            typed(*BOARD, "--headline", "{1}", "{2}"),
        ),
        (
            [*BOARD, "--headline", "--sort", "K", "--picture", "a.png"],
            "leave (--sort, --picture) out",
            typed(*BOARD, "--headline"),
        ),
        (
            [*BOARD, "--format", "html", "--sort", "K"],
            r"(--format html) prints .* it takes STUDY and (--store) only",
            typed("leaderboard", "k-ablation", "--format", "html", "{2}", "runs"),
        ),
        (
            [*BOARD, "--picture", "a.png", "--size", "3x"],
            r"as in (\S+)$",
            typed(*BOARD, "k-ablation", "--picture", "a.png", "--size", "{1}"),
        ),
        (
            [*BOARD, "--picture", "a.png", "--size", "3.3x2.4"],
            r"choose one \((--filter) (protocol=\w+) or (--filter) (protocol=\w+)\)",
            typed(*BOARD, "--picture", "a.png", "--size", "3.3x2.4", "{3}", "{4}"),
        ),
        (
            [*BOARD, "k-ablation", "--size", "3.3x2.4"],
            "give (--picture) FILE too",
            typed(*BOARD, "k-ablation", "--size", "3.3x2.4", "{1}", "b.png"),
        ),
        (["leaderboard", "--store", "rnus"], "and (--store) names another", typed("leaderboard", "{1}", "runs")),
        (["report", "--store", "rnus"], "and (--store) names another", typed("report", "{1}", "runs")),
        (["store", "ls", "--store", "rnus"], "(--store) names another", typed("store", "ls", "{1}", "runs")),
        (["watch", "--store", "rnus"], "(--store) names another", typed("watch", "{1}", "runs", "--plain")),
        (["report", "--store", "runs", "--output", "."], r"as in --output (\S+)$", typed(
            "report", "--store", "runs", "--output", "{1}"
        )),
        (
            ["report", "k-ablation", "--merge", "rows.json"],
            "leave (STUDY) and --store out",
            typed("report", "--merge", "rows.json", "--output", "merged.html"),
        ),
        (
            ["report", "--store", "runs", "--merge", "rows.json"],
            "leave STUDY and (--store) out",
            typed("report", "--merge", "rows.json", "--output", "merged.html"),
        ),
        ([*BOARD, "--at", "200"], r"scores are from \d+ to (\d+)$", typed(*BOARD, "--at", "{1}")),
        ([*BOARD, "--json", "--format", "md"], r"^(--json) is --format json", typed(*BOARD, "{1}")),
        (
            [*BOARD, "--json", "--format", "md"],
            r"and (--format) (md) is asked for too$",
            typed(*BOARD, "{1}", "{2}"),
        ),
        (
            [*BOARD, "k-ablation", "--picture", "a.bmp"],
            r"the name must end in [.\w]+, (\.svg),",
            typed(*BOARD, "k-ablation", "--picture", "c{1}"),
        ),
        (
            [*BOARD, "k-ablation", "--picture", "nowhere/c.svg"],
            r"--picture nowhere/(\S+): .*: name a file in a folder that is there$",
            typed(*BOARD, "k-ablation", "--picture", "{1}"),
        ),
        (
            [*BOARD, "--filter", "head>energy"],
            r"(head)\S*: .* is compared by (=) and (!=) only$",
            lambda found: [[*BOARD, "--filter", f"{found[1]}{sign}{value}"] for sign, value in (
                (found[2], "energy"), (found[3], "flow")
            )],
        ),
        (["leaderboard", "k-ablatoin", "--store", "runs"], r"did you mean '([\w-]+)'", typed(
            "leaderboard", "{1}", "--store", "runs"
        )),
        (["report", "k-ablatoin", "--store", "runs"], r"did you mean '([\w-]+)'", typed(
            "report", "{1}", "--store", "runs", "--output", "near.html"
        )),
    ],
)  # fmt: skip
def test_what_the_message_says_is_typed(
    given: list[str], advice: str, followed: Callable[[re.Match[str]], list[Sequence[str]]]
) -> None:
    message, _ = call(*given)
    assert message is not None
    found = re.search(advice, message)
    assert found is not None, message
    for command in followed(found):
        assert call(*command)[0] is None, command


def test_a_leaderboard_of_mlflow_needs_its_address() -> None:
    message, _ = call("leaderboard", "--experiment", "x")
    assert message is not None
    assert "give --mlflow URI too" in message


@pytest.mark.parametrize("packed", [gzip.compress, lambda content: content.decode().encode("utf-16")])
def test_a_file_of_rows_is_read_after_the_command_that_is_named(folder: Path, packed: Callable[[bytes], bytes]) -> None:
    (folder / "packed.json").write_bytes(packed((folder / "rows.json").read_bytes()))
    message, _ = call("leaderboard", "--merge", "packed.json")
    assert message is not None
    found = re.search(r"with `(.+ FILE > NEW)`", message)
    assert found is not None, message
    command = found[1].replace("FILE", "packed.json").replace("NEW", "unpacked.json")
    subprocess.run(command, shell=True, check=True, cwd=folder)
    assert call("leaderboard", "--merge", "unpacked.json")[0] is None
