"""Check files of results before they join a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calm_bench.errors import FAILED
from pipelines.app.commands.options import AsJson, console, print_json, say


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Written by leaderboard --format json.")],
    as_json: AsJson = False,
) -> None:
    """Check files of results: protocols, digests, errors and counts are there, and numbers agree with each other.

    Ends with exit code 1 where something is wrong. Whether the numbers were measured it cannot tell.
    """
    from pipelines.common.numbers import printable
    from pipelines.results.checks import problems_of
    from pipelines.results.leaderboard import LeaderboardError, read_board

    checked: list[dict[str, Any]] = []
    for path in files:
        try:
            board = read_board(path)
        except LeaderboardError as error:
            checked.append({"file": str(path), "rows": None, "problems": [str(error)]})
        else:
            problems = problems_of(board) or ([] if len(board) else ["it holds no rows"])
            checked.append({"file": str(path), "rows": len(board), "problems": problems})
    if as_json:
        print_json(checked)
    else:
        screen = console()
        for one in checked:
            for problem in one["problems"]:
                # Who could not read it names the file itself.
                where = "" if one["rows"] is None else f"{one['file']}: "
                say(screen, f"{where}{printable(problem)}", style="red")
            if not one["problems"]:
                say(screen, f"{one['file']}: {one['rows']} {'row' if one['rows'] == 1 else 'rows'} in order")
    if any(one["problems"] for one in checked):
        raise typer.Exit(FAILED)
