"""Check files of results before they join a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calm_bench.errors import FAILED
from pipelines.app.commands.options import console, say


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Written by leaderboard --format json.")],
) -> None:
    """Check files of results: protocols, digests, errors and counts are there, and numbers agree with each other.

    Ends with exit code 1 where something is wrong. Whether the numbers were measured it cannot tell.
    """
    from pipelines.common.numbers import printable
    from pipelines.results.checks import problems_of
    from pipelines.results.leaderboard import LeaderboardError, read_board

    screen, is_wrong = console(), False
    for path in files:
        try:
            board = read_board(path)
        except LeaderboardError as error:
            say(screen, printable(str(error)), style="red")
            is_wrong = True
            continue
        problems = problems_of(board) or ([] if len(board) else ["it holds no rows"])
        for problem in problems:
            say(screen, f"{path}: {printable(problem)}", style="red")
        if not problems:
            say(screen, f"{path}: {len(board)} rows in order")
        is_wrong |= bool(problems)
    if is_wrong:
        raise typer.Exit(FAILED)
