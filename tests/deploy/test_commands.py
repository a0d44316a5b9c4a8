"""Every command that deploy/ and the documentation tell people to type is one that calm-bench takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from calm_bench.overrides import parse_assignment
from calm_bench.problems import check_path
from pipelines.app.cli import app
from pipelines.app.commands.options import DEFAULT_STUDY
from pipelines.study.catalogue import resolve_study, shipped_studies
from pipelines.study.config import Study

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r"(?:^|/)calm-bench$")
STUDIES = {study.name for study in shipped_studies()}


def commands_in(text: str) -> Iterator[list[str]]:
    """The arguments of each call of ``calm-bench`` in a line for a shell, inside quotes too."""
    try:
        split = shlex.shlex(text, posix=True, punctuation_chars=";&|<>()")
        split.whitespace_split = True
        words = list(split)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[;&|<>()]+", word):
            if len(command) > 1 and PROGRAM.search(command[0]):
                yield command[1:]
            command = []
        elif command or not re.fullmatch(r"\w+=.*|do|then|nohup|sudo|time|exec", word):
            command.append(word)
        if " " in word and "calm-bench " in word:
            yield from commands_in(word)


def _of_markdown(path: Path) -> Iterator[list[str]]:
    for block in re.findall(r"^```(?:sh|bash|console|text)?\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        if "──" in block:
            continue  # what a command prints
        for line in re.sub(r"\$\w+", "1", block.replace("\\\n", " ")).splitlines():
            yield from commands_in(line.removeprefix("$ "))


def _of_yaml(node: Any) -> Iterator[list[str]]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _of_yaml(child)
    elif isinstance(node, str):
        yield from commands_in(node)


def _all() -> Iterator[tuple[str, list[str]]]:
    for path in sorted([*ROOT.glob("deploy/**/*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]):
        for words in _of_markdown(path):
            yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words
    for path in sorted(ROOT.glob("deploy/**/*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for words in _of_yaml(document):
                yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words


def _is_a_form(words: list[str]) -> bool:
    """Whether something is to be filled in: ``calm-bench run STUDY [KEY=VALUE ...]``."""
    return any(re.search(r"^[A-Z]+$|\[|…|\.\.\.$", word) for word in words)


COMMANDS = {name: words for name, words in _all() if not _is_a_form(words)}


def test_there_is_something_to_check() -> None:
    assert sum(name.startswith("deploy/") for name in COMMANDS) >= 4
    assert sum(name.startswith("docs/scaling.md") for name in COMMANDS) >= 6
    assert list(commands_in("ray exec x.yaml 'RAY_AUTH_MODE=token ~/v/bin/calm-bench run smoke seed=1' --tmux")) == [
        ["run", "smoke", "seed=1"]
    ]
    assert list(commands_in("cd x && calm-bench plan smoke | less")) == [["plan", "smoke"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_documented_command_parses(name: str) -> None:
    words = COMMANDS[name]
    group = typer.main.get_command(app)
    command, arguments = _command(group, words)
    with command.make_context("calm-bench", arguments) as parsed:
        study, overrides = parsed.params.get("study"), parsed.params.get("overrides")
    if not isinstance(study, str) or overrides is None:
        return
    settings = list(overrides)
    if "=" in study:
        settings.insert(0, study)
        study = DEFAULT_STUDY
    if study in STUDIES:
        resolve_study(study, settings)
    else:
        for assignment in settings:
            check_path(Study, parse_assignment(assignment)[0])


def _command(group: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The innermost command that ``words`` name, and what is left for it."""
    command, rest = group, list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest
