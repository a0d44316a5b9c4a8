"""The commands that do a study again, and what its numbers depend on beside them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.report.data import Command
from pipelines.report.environment import Environment
from pipelines.store.study_record import STUDY_FILE

MOST_OVERRIDES = 6
"""Differences from a shipped study beyond which its saved configuration is the shorter way."""
_ELSEWHERE = ("execution", "tracking")
"""Sections that say where and how it ran; no number depends on them."""


def commands_for(name: str, configuration: str, environment: Environment) -> list[Command]:
    """Lines for a shell, in their order.

    Args:
        name: of the study.
        configuration: its resolved YAML.
    """
    commands = []
    commit = next(iter(environment.commits), None)
    if commit is not None:
        commands.append(Command(f"git checkout {commit.split()[0]}", "the code, in a clone of the repository"))
        commands.append(Command("pip install -c constraints.txt .", "the same versions of the libraries"))
    elif environment.version is not None:
        commands.append(Command(f"pip install calm-bench=={environment.version}", "the code"))
    overrides = differences_from_shipped(name, configuration)
    if overrides is not None and len(overrides) <= MOST_OVERRIDES:
        arguments = " ".join(shlex.quote(text) for text in (name, *overrides))
        again = f"calm-bench run {arguments}"
        plan = f"calm-bench plan {arguments}"
    else:
        again, plan = f"calm-bench run ./{STUDY_FILE}", f"calm-bench plan ./{STUDY_FILE}"
    commands.append(Command(plan, "what it will do and cost, without doing it"))
    commands.append(Command(again, "train, score and write the leaderboard; what the store holds is not run again"))
    commands.append(Command(f"calm-bench leaderboard {shlex.quote(name)}", "the table"))
    commands.append(Command(f"calm-bench report {shlex.quote(name)}", "this page"))
    return commands


def notes_for(commands: Sequence[Command], environment: Environment, corpus: Mapping[str, Any]) -> list[str]:
    """What a repetition depends on beside the commands, a sentence each.

    Args:
        corpus: the result of the corpus stage; empty where it is not in the store.
    """
    notes = []
    if any(STUDY_FILE in command.text for command in commands):
        notes.append(f"{STUDY_FILE} is the configuration shown below; the button there saves it.")
    if corpus.get("source") == "stdlib" and corpus.get("python"):
        notes.append(
            f"The corpus is the documentation of Python's own library, so it needs Python {corpus['python']}: another "
            "one has other texts."
        )
    if corpus.get("digest"):
        notes.append(f"The corpus is the same if its digest is {corpus['digest'][:16]}….")
    if any("(modified)" in commit for commit in environment.commits):
        notes.append("Files of the code were changed and not committed, so the commit alone is not the whole code.")
    if len(environment.commits) > 1:
        notes.append("Stages were made by several commits; the first is the one named here, the others stand above.")
    notes.append(
        "On the same machine and versions every number comes out the same, except times; another processor may round "
        "differently."
    )
    return notes


def differences_from_shipped(name: str, configuration: str) -> list[str] | None:
    """``key=value`` assignments that turn the shipped study ``name`` into this one; None where that cannot be said."""
    from pipelines.study.catalogue import SHIPPED, resolve_study

    if not (SHIPPED / f"{name}.yaml").is_file():
        return None
    shipped = resolve_study(name).model_dump(mode="json")
    given = yaml.safe_load(configuration)
    if not isinstance(given, dict):
        return None
    found: list[str] = []
    for section in sorted(shipped.keys() | given.keys()):
        if section in _ELSEWHERE:
            continue
        if not _differences(shipped.get(section), given.get(section), section, found):
            return None
    return found


def _differences(shipped: Any, given: Any, path: str, found: list[str]) -> bool:
    """Collect assignments; False where a difference is none that the command line can set."""
    if shipped == given:
        return True
    if isinstance(shipped, dict) and isinstance(given, dict) and shipped.keys() == given.keys():
        return all(_differences(shipped[key], given[key], f"{path}.{key}", found) for key in shipped)
    if isinstance(given, dict) or (isinstance(given, list) and any(isinstance(item, dict | list) for item in given)):
        return False
    found.append(f"{path}={given if isinstance(given, str) else json.dumps(given)}")
    return True
