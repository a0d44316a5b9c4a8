"""The report: one HTML file that tells what a study found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.app.commands.options import StorePath, console, say


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY", help="Names of studies (default: all).")
    ] = None,
    store: StorePath = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to (default: beside the study, or report.html)."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a report that opens offline: headline, Pareto plot, leaderboard, training curves, samples, how to repeat.

    Several studies come into one page; what was measured under different protocols is kept apart on it.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.report.collect import study_folders
    from pipelines.report.page import REPORT, write_report
    from pipelines.store.opening import open_store

    where = open_store(store)
    folders = study_folders(where, studies or ())
    path = output or (folders[0] / REPORT if len(folders) == 1 else Path(REPORT))
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in it, as in --output {path / REPORT}")
    write_report(where, folders, path)
    if path.parent in folders:
        where.studies.save(path.parent.name)
    say(console(), str(path))
    if show:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())
