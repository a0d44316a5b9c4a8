"""Every command that deploy/ and the documentation tell people to type is one that calm-bench takes."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
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
RAY = re.compile(r"(?:^|/)ray$")
KUBECTL = re.compile(r"^kubectl$")
DOCKER = re.compile(r"^docker$")
STUDIES = {study.name for study in shipped_studies()}
NAMES = {
    PROGRAM: {*typer.main.get_command(app).commands},  # type: ignore[attr-defined]
    KUBECTL: {"apply", "create", "delete", "logs"},
    DOCKER: {"build", "compose", "run"},
    RAY: {"start", "stop", "up", "down", "exec", "attach", "get-auth-token", "health-check", "status"},
}
"""Commands of the programs, by which they are known behind others (``srun ray start``)."""


def commands_in(text: str, program: re.Pattern[str] = PROGRAM) -> Iterator[list[str]]:
    """The arguments of each call of ``calm-bench`` in a line for a shell, also inside quotes and behind others."""
    try:
        split = shlex.shlex(text, posix=True, punctuation_chars=";&|<>()")
        split.whitespace_split = True
        words = list(split)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[;&|<>()]+", word):
            for begin, (called, first) in enumerate(itertools.pairwise(command)):
                if program.search(called) and (begin == 0 or first in NAMES[program]):
                    yield command[begin + 1 :]
                    break
            command = []
        elif command or not re.fullmatch(r"\w+=.*|do|then|nohup|sudo|time|exec", word):
            command.append(word)
        if " " in word and "calm-bench " in word:
            yield from commands_in(word, program)


def _of_markdown(path: Path, program: re.Pattern[str]) -> Iterator[list[str]]:
    for block in re.findall(r"^```(?:sh|bash|console|text)?\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        if "──" in block:
            continue  # what a command prints
        for line in re.sub(r"\$\w+", "1", block.replace("\\\n", " ")).splitlines():
            yield from commands_in(line.removeprefix("$ "), program)


def _of_yaml(node: Any, program: re.Pattern[str]) -> Iterator[list[str]]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _of_yaml(child, program)
    elif isinstance(node, str):
        yield from commands_in(node, program)


def _all(program: re.Pattern[str] = PROGRAM) -> Iterator[tuple[str, list[str]]]:
    for path in sorted([*ROOT.glob("deploy/**/*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]):
        for words in _of_markdown(path, program):
            yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words
    for path in sorted([*ROOT.glob("deploy/**/*.yaml"), *ROOT.glob("deploy/**/*.yml")]):
        for document in yaml.safe_load_all(path.read_text()):
            for words in _of_yaml(document, program):
                yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words
    for path in sorted(file for file in ROOT.glob("deploy/**/*") if file.is_file()):
        for words in _of_script(path, program):
            yield f"{path.relative_to(ROOT)}: {' '.join(words)}", words


def _of_script(path: Path, program: re.Pattern[str]) -> Iterator[list[str]]:
    """Of a shell's lines, and of comments in whatever has them."""
    text = path.read_text()
    if path.suffix == ".sh":
        text = text.replace('"$@"', "smoke").replace("$CALM_BENCH_SETTINGS", "execution.gpus_per_stage=1")
        text = re.sub(r"\$\{?\w+\}?", "1", text).replace("\\\n", " ")
    elif path.suffix == ".md":
        text = ""
    for line in text.splitlines():
        if path.suffix == ".sh" or line.lstrip().startswith("#"):
            # In a comment a name may begin a sentence.
            yield from (words for words in commands_in(line.lstrip("# "), program) if words[0] in NAMES[program])


def _is_a_form(words: list[str]) -> bool:
    """Whether something is to be filled in: ``calm-bench run STUDY [KEY=VALUE ...]``."""
    return any(re.search(r"^[A-Z]+$|\[|…|\.\.\.$|^\$\{\{$", word) for word in words)


COMMANDS = {name: words for name, words in _all() if not _is_a_form(words)}


def test_there_is_something_to_check() -> None:
    assert sum(name.startswith("deploy/") for name in COMMANDS) >= 4
    assert sum(name.startswith("docs/scaling.md") for name in COMMANDS) >= 6
    assert list(commands_in("ray exec x.yaml 'RAY_AUTH_MODE=token ~/v/bin/calm-bench run smoke seed=1' --tmux")) == [
        ["run", "smoke", "seed=1"]
    ]
    assert sum(name.startswith("deploy/slurm/") for name in COMMANDS) >= 2
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


def test_every_file_of_deploy_that_is_named_is_there() -> None:
    """In what people read or type; ``.env`` they make themselves."""
    texts = [*ROOT.glob("deploy/**/*"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    named = {
        (str(path.relative_to(ROOT)), name.rstrip("."))
        for path in texts
        if path.is_file()
        for name in re.findall(r"(?<![\w./])deploy/[\w./-]*\w/?", path.read_text())
    }
    assert len(named) > 15
    assert [one for one in sorted(named) if not (ROOT / one[1]).exists() and not one[1].endswith("/.env")] == []


def test_arguments_of_the_image_are_its_own() -> None:
    for file in ("deploy/README.md", "deploy/Dockerfile"):
        text = (ROOT / file).read_text()
        for dockerfile, name, value in re.findall(r"docker build -f (\S+) --build-arg (\w+)=(\w+)", text):
            image = (ROOT / dockerfile).read_text()
            assert re.search(rf"^ARG {name}=", image, re.MULTILINE), f"{file}: {name}"
            assert re.search(rf"^\s+{value}\) pip install", image, re.MULTILINE), f"{file}: {name}={value}"


def test_commands_of_ray_are_its_own() -> None:
    from ray.scripts.scripts import cli

    found = dict(_all(RAY))
    assert {words[0] for words in found.values()} >= {"start", "up", "down", "exec", "attach", "get-auth-token"}
    for name, words in found.items():
        known = {option for parameter in cli.commands[words[0]].params for option in parameter.opts}
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert named <= known, f"{name}: {named - known}"


CLIENTS = {"kubectl": KUBECTL, "docker": DOCKER}
OPTIONS = {
    "kubectl": {
        "create": {"--from-env-file"},
        "apply": {"-f"},
        "logs": {"--follow", "--selector"},
        "delete": set[str](),
    },
    "docker": {
        "build": {"-f", "--build-arg", "-t"},
        "run": {"--rm", "-v"},
        "compose": {"-f", "-d", "--build", "--wait", "--volumes"},
    },
}
"""Those of their references that are used here."""


@pytest.mark.parametrize("client", CLIENTS)
def test_commands_of_clusters_and_containers_are_their_own(client: str) -> None:
    """By what their references say, and by the clients themselves where they are installed."""
    found = dict(_all(CLIENTS[client]))
    assert {words[0] for words in found.values()} == set(OPTIONS[client])
    for name, words in found.items():
        # Behind the image stands what it is to run.
        image = next((n for n, word in enumerate(words) if words[0] == "run" and word == "calm-bench:cpu"), len(words))
        named = {word.partition("=")[0] for word in words[:image] if word.startswith("-")}
        assert named <= OPTIONS[client][words[0]], name
        if shutil.which(client) is None or (words[0] == "compose" and not _has_compose()):
            continue
        asked = [client, *words[:image], "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def _has_compose() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def test_a_secret_is_made_of_the_example(tmp_path: Path) -> None:
    """As kubectl reads a file of variables, comments in it left out; what the study's pods are to find is in it."""
    example = (ROOT / "deploy/kubernetes/.env.example").read_text()
    lines = [line for line in example.splitlines() if line.strip() and not line.startswith("#")]
    names = {line.partition("=")[0] for line in lines}
    assert names == {"MLFLOW_TRACKING_URI", "CALM_BENCH_OPTUNA_STORAGE"}
    words, *_ = [words for words in dict(_all(KUBECTL)).values() if words[0] == "create"]
    option, file = words[-1].split("=")
    assert (ROOT / f"{file}.example").is_file()
    job = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/study.yaml").read_text()))[1]
    assert f"'secretRef': {{'name': '{words[3]}'" in str(job)
    if shutil.which("kubectl") is None:
        return
    (tmp_path / ".env").write_text(example)
    asked = ["kubectl", *words[:-1], f"{option}={tmp_path / '.env'}", "--dry-run=client", "-o", "yaml"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["data"]) == names
