"""What a study may hold: the schema of a study file, and its settings by path."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.app.commands.options import AsJson, console, print_json, say


def schema() -> None:
    """Print the JSON schema of a study file, by which editors complete and check it."""
    from pipelines.study.setting_paths import study_schema

    print_json(study_schema())


def settings(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Only settings whose path or description has them all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List settings by path, with their defaults and what presets say."""
    from calm_bench.overrides import ConfigurationError
    from pipelines.study.setting_paths import setting_paths

    wanted = [word.casefold() for word in words or ()]
    found = [
        one for one in setting_paths() if all(word in f"{one.path} {one.description}".casefold() for word in wanted)
    ]
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        raise ConfigurationError(f"no setting has {' and '.join(words or ())} in its path or description")
    screen = console()
    for one in found:
        say(screen, f"{one.path} = {one.default}  ({one.type})", style="bold")
        if one.description:
            say(screen, f"    {one.description}")
        if one.presets:
            say(screen, "    " + ", ".join(f"{name}: {value}" for name, value in one.presets.items()), style="dim")
