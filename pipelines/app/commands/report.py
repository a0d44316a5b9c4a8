"""The report: one HTML file that tells what a study found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.app.commands.options import (
    AsJson,
    StorePath,
    console,
    names_and_files,
    print_json,
    say,
    say_on_stderr,
)


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY", help="Names of studies, or their YAML files (default: all).")
    ] = None,
    store: StorePath = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where to (default: beside the study, or report.html)."),
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Of these files instead of a store: results/*.json of leaderboard --format json."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a report that opens offline: headline, Pareto plot, leaderboard, training curves, samples, how to repeat.

    Several studies come into one page; what was measured under different protocols is kept apart on it. With --merge
    the page is made of files of results, and can be put on any static host.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.report.collect import study_folders
    from pipelines.report.page import REPORT, write_report
    from pipelines.store.opening import open_store

    names, files = names_and_files(studies or [], merge)
    if files:
        if names or store is not None:
            raise ConfigurationError("--merge makes a page of files alone: leave STUDY and --store out")
        path = _writable(output or Path(REPORT))
        _write_merged(files, path)
        _show(path, show, as_json)
        return
    where = open_store(store)
    folders = study_folders(where, names)
    path = _writable(output or (folders[0] / REPORT if len(folders) == 1 else Path(REPORT)))
    write_report(where, folders, path)
    if path.parent in folders:
        where.studies.save(path.parent.name)
    _show(path, show, as_json)


def _writable(path: Path) -> Path:
    from calm_bench.atomic import refuse_unwritable
    from calm_bench.overrides import ConfigurationError
    from pipelines.report.page import REPORT

    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: name a file in it, as in --output {path / REPORT}")
    refuse_unwritable(path)
    return path


def _write_merged(files: list[Path], path: Path) -> None:
    from calm_bench.atomic import write_bytes
    from pipelines.report.from_files import collect_files
    from pipelines.report.page import render

    report, remarks = collect_files(files)
    for remark in remarks:
        say_on_stderr(remark)
    write_bytes(path, render(report).encode())


def _show(path: Path, show: bool, as_json: bool) -> None:
    if as_json:
        print_json({"report": str(path)})
    else:
        say(console(), str(path))
    if show:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())
