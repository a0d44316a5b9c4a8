"""Everything that this project takes of lm-eval beyond its public interface, in one place, with the reason.

``tests/evals/adapters/test_lm_eval_internals.py`` fails with the name of what has changed when lm-eval changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def load_task_settings(path: Path) -> dict[str, Any]:
    """A task file with its includes merged and its functions imported (``lm_eval.tasks._yaml_loader.load_yaml``).

    lm-eval's ``TaskManager`` takes a changed task only as its settings, and reads a file's settings with this function.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    settings: dict[str, Any] = load_yaml(path)
    return settings


def add_request_types(*answers: Callable[..., Any]) -> None:
    """Make functions methods of ``lm_eval.api.model.LM``, unless it has methods of these names.

    lm-eval's ``evaluate`` calls the method that a request's type names, and has no way to register a type. Without
    this, lm-eval's own models could not be asked for samples.
    """
    from lm_eval.api.model import LM

    for answer in answers:
        if not hasattr(LM, answer.__name__):
            setattr(LM, answer.__name__, answer)


@contextmanager
def request_seed(lm: Any, seed: int) -> Iterator[None]:
    """Within, a model that talks to a server sends ``seed`` with its requests (attribute ``_seed``).

    lm-eval's ``TemplateAPI`` sends one constant seed with every request, which would make all samples the same, and
    takes no other per request.
    """
    before = getattr(lm, "_seed", None)
    if not isinstance(before, int):
        yield
        return
    lm._seed = seed % 2**31
    try:
        yield
    finally:
        lm._seed = before


def run_command(arguments: Sequence[str]) -> None:
    """lm-eval's command with ``arguments`` (the parser of ``lm_eval._cli.HarnessCLI``).

    Its public ``cli_evaluate`` reads ``sys.argv`` of this process, which belongs to calm-bench.
    """
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    cli = HarnessCLI()
    given = list(arguments)
    if len(given) > 1 and given[0] not in cli._subparsers.choices:
        # As lm-eval does it: its older form has no name of a command.
        given.insert(0, "run")
    if given == ["run"]:
        cli._subparsers.choices["run"].print_help()
        return
    cli.execute(cli._parser.parse_args(given))


__all__ = ["add_request_types", "load_task_settings", "request_seed", "run_command"]
