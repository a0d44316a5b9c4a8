"""Advice in messages can be followed: every setting, option and command that a message names is there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any, get_args

import typer.main
from packaging.requirements import Requirement
from pydantic import BaseModel

from pipelines.app.cli import app
from pipelines.study.config import Study

ROOT = Path(__file__).parents[1]
SECTIONS = {*Study.model_fields, "training"}
SETTING = re.compile(rf"(?<![\w./{{])(?:{'|'.join(sorted(SECTIONS))})(?:\.[a-z0-9_]+)+(?![\w(/:{{])")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z](?![\w-])")
COMMAND = re.compile(r"calm-bench ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?")
OTHERS = {
    "--model": "lm-eval",
    "--model_args": "lm-eval",
    "--use_cache": "lm-eval",
    "--include_path": "lm-eval",
    "--apply_chat_template": "lm-eval",
    "--confirm_run_unsafe_code": "lm-eval",
    "--experiment-id": "mlflow",
    "--repo-type": "hf",
    "--local-dir": "hf",
    "--revision": "hf",
    "--user": "pip",
    "--upgrade": "pip",
}
"""Options of other programs."""


def messages() -> Iterator[tuple[str, str]]:
    """Place and text of every string of the three packages that is a sentence and no docstring; what is put into it
    stands as ``{}``."""
    for package in ("calm_bench", "evals", "pipelines"):
        for file in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
            alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                text = ""
                if isinstance(node, ast.JoinedStr):
                    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | alone:
                    text = node.value
                if " " in text:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", text  # type: ignore[attr-defined]


def has_setting(path: str) -> bool:
    """Whether a study has the setting ``a.b.c``."""
    models: list[Any] = [Study]
    for name in path.split("."):
        annotations = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        if not annotations:
            return False
        models = [found for annotation in annotations for found in models_in(annotation)]
    return True


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in models_in(part)]


def test_every_setting_that_a_message_names_is_one() -> None:
    named = [(place, found[0].rstrip(".")) for place, text in messages() for found in SETTING.finditer(text)]
    assert len(named) > 50, "this test finds messages"
    wrong = [f"{place}: {path}" for place, path in named if not has_setting(path)]
    assert wrong == []


EXTRA = re.compile(r"(?:calm-bench|\.)\[(\w+)\]")
PIP = re.compile(r"pip install (?!-)([\w-]+)")


def test_every_package_that_a_message_installs_is_one_that_helps() -> None:
    from fsspec.registry import known_implementations  # type: ignore[import-untyped]

    from pipelines.search.postgresql import DRIVERS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: {Requirement(text).name for text in needed} for name, needed in project["optional-dependencies"].items()
    }
    known = {Requirement(text).name for text in project["dependencies"]}.union(*extras.values())
    # transformers reads by it what it has no copy of, and says so itself.
    known |= {Requirement(text).name for text in requires("transformers") or () if text.startswith("sentencepiece")}
    named = [(place, found) for place, text in messages() for found in PIP.findall(text)]
    assert {found for _, found in named} >= {"datasets", "optuna-dashboard", "sentencepiece"}
    assert [f"{place}: {found}" for place, found in named if found not in known] == []
    asked = [(place, found) for place, text in messages() for found in EXTRA.findall(text)]
    assert {found for _, found in asked} >= {"s3", "ui"}
    assert [f"{place}: [{found}]" for place, found in asked if found not in extras] == []
    # The extras hold what the messages beside them say is missing.
    missing = known_implementations["s3"]["err"]
    assert any(name in missing for name in extras["s3"]), missing
    assert "optuna-dashboard" in extras["ui"]
    assert Requirement(DRIVERS["psycopg"]).name in extras["postgresql"]


def commands() -> dict[str, Any]:
    root = typer.main.get_command(app)
    found = dict(root.commands)  # type: ignore[attr-defined]
    for name, command in list(found.items()):
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()}
    return found


def test_every_option_and_command_that_a_message_names_is_one() -> None:
    known = commands()
    options = {option for command in known.values() for parameter in command.params for option in parameter.opts}
    options |= {"--debug", "--version", "--help", *OTHERS}
    options |= {
        option for command in known.values() for parameter in command.params for option in parameter.secondary_opts
    }
    wrong = []
    for place, text in messages():
        wrong += [f"{place}: {option}" for option in OPTION.findall(text) if option not in options]
        for first, second in COMMAND.findall(text):
            group = known.get(first)
            if group is not None and getattr(group, "commands", None) and f"{first} {second}" not in known:
                wrong.append(f"{place}: calm-bench {first} {second}")
    assert wrong == []
