"""The leaderboard of finished studies."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import (
    StorePath,
    console,
    error_console,
)


class Format(StrEnum):
    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def leaderboard(
    studies: Annotated[list[str] | None, typer.Argument(help="Names of studies [default: all].")] = None,
    store: StorePath = None,
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Read from this tracking URI, not from files.")] = None,
    experiment: Annotated[str, typer.Option("--experiment", help="Of MLflow.")] = "calm-bench",
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An older leaderboard.json: say what got better or worse since.")
    ] = None,
    pool: Annotated[bool, typer.Option("--pool/--every-seed", help="One row for all seeds of a configuration.")] = True,
) -> None:
    """Print the leaderboard of all studies in the store, or in MLflow."""
    from calm_bench.overrides import ConfigurationError
    from calm_bench.registry import did_you_mean
    from pipelines.leaderboard.leaderboard import Leaderboard
    from pipelines.leaderboard.pooling import pooled
    from pipelines.leaderboard.render import markdown, print_table
    from pipelines.scoring.models import stored_leaderboards
    from pipelines.store.store import Store

    if mlflow is not None:
        from pipelines.mirror.client import entries_from_mlflow

        entries = entries_from_mlflow(mlflow, experiment)
    else:
        entries = [entry for board in stored_leaderboards(Store(store or "runs")).values() for entry in board]
    known = sorted({entry.study for entry in entries})
    for name in studies or ():
        if name not in known:
            raise ConfigurationError(f"no finished study {name!r}{did_you_mean(name, known) if known else ''}")
    chosen = [entry for entry in entries if not studies or entry.study in studies]
    board = Leaderboard(pooled(chosen) if pool else chosen)
    if format is Format.table:
        print_table(board, console())
    else:
        texts = {Format.md: markdown, Format.csv: Leaderboard.to_csv, Format.json: Leaderboard.to_json}
        sys.stdout.write(texts[format](board))
    if baseline is not None:
        from pipelines.leaderboard.baseline import changes_table, compare_boards

        if not baseline.is_file():
            raise ConfigurationError(f"there is no leaderboard {baseline} to compare with")
        before = list(Leaderboard.from_json(baseline.read_text(encoding="utf-8")))
        screen = console() if format is Format.table else error_console()
        screen.print()
        screen.print(changes_table(compare_boards(pooled(before) if pool else before, board)))
    if picture is not None:
        from pipelines.leaderboard.figure import draw

        if not board.groups:
            raise ConfigurationError("there are no rows to draw: run a study first")
        draw(board, picture)
