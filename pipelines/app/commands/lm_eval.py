"""lm-eval's own command, with our models and tasks in it."""

from __future__ import annotations

import typer

OWN_PATH = "--include_path"
_WITH_TASKS = ("run", "ls", "validate")

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""All arguments, ``--help`` included, are lm-eval's."""


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's command with our models (--model calm-bench --model_args pretrained=FOLDER,scorer=...) and tasks.

    All arguments are lm-eval's. An --include_path of your own takes the place of ours.
    """
    from evals.adapters.lm_eval_internals import run_command
    from evals.data_caches import transformed_anew
    from evals.harness import register

    register()
    with transformed_anew():
        run_command(with_our_tasks(context.args))


def with_our_tasks(arguments: list[str]) -> list[str]:
    """lm-eval's arguments, told of our task files unless they name others."""
    from evals.tasks import TASKS_FOLDER

    asks_for_help = not arguments or any(argument in ("-h", "--help") for argument in arguments)
    named = any(argument == OWN_PATH or argument.startswith(f"{OWN_PATH}=") for argument in arguments)
    without_command = arguments[:1] and arguments[0].startswith("-")
    if asks_for_help or named or not (without_command or arguments[0] in _WITH_TASKS):
        return arguments
    return [*arguments, OWN_PATH, str(TASKS_FOLDER)]
