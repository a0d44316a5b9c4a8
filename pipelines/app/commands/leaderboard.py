"""The leaderboard of finished studies."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.app.commands.options import (
    AsJson,
    StorePath,
    check_picture,
    console,
    error_console,
    names_and_files,
    print_json,
    say,
    say_on_stderr,
)

if TYPE_CHECKING:
    from pipelines.results.entry import Entry


PICTURES = (".png", ".svg", ".pdf", ".pgf")
HIGHEST = 100
"""BrierLM of who always knows the truth."""


class Format(StrEnum):
    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    html = "html"
    latex = "latex"


def leaderboard(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY", help="Names of studies, or their YAML files (default: all).")
    ] = None,
    store: StorePath = None,
    format: Annotated[Format, typer.Option("--format", help="How to print it; html is the report.")] = Format.table,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Only these, such as K,head,brierlm,tokens_per_second.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="By this column, with :asc or :desc (default: better first).")
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Only rows with K=4, 'brierlm>4', 'head!=flow'; several must all hold. Numbers as the table has them.",
        ),
    ] = None,
    pareto: Annotated[
        str | None, typer.Option("--pareto", help="Mark the Pareto front of two columns, such as parameters,brierlm.")
    ] = None,
    within_errors: Annotated[
        bool,
        typer.Option("--within-errors", help="On fronts, count as beaten only what is beaten beyond the errors."),
    ] = False,
    headline: Annotated[
        bool, typer.Option("--headline", help="Say what share of the token model's FLOPs each K needs instead.")
    ] = False,
    at: Annotated[float | None, typer.Option("--at", help="With --headline: at this BrierLM too.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw it: a .png, .svg, .pdf or .pgf file.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Inches of a picture for a paper, as 3.3x2.4; no title, no footnote."),
    ] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Read from this tracking URI, not from files.")] = None,
    experiment: Annotated[
        list[str] | None, typer.Option("--experiment", help="Of MLflow; several may be given (default: calm-bench).")
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Add the rows of these files: results/*.json, written by --format json."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An older leaderboard.json: say what got better or worse since.")
    ] = None,
    pool: Annotated[bool, typer.Option("--pool/--every-seed", help="One row for all seeds of a configuration.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard of all studies in the store, or in MLflow, or in files.

    Rows are ranked among those that are shown. With --columns, CSV and JSON hold these columns; without, all fields,
    and JSON can be read back by --merge and --baseline.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.report.export import records_csv, records_json
    from pipelines.report.tables import markdown, print_table
    from pipelines.results.leaderboard import Leaderboard
    from pipelines.results.pooling import pooled
    from pipelines.results.view import View

    if as_json:
        if format not in (Format.table, Format.json):
            raise ConfigurationError(f"--json is --format json, and --format {format.value} is asked for too")
        format = Format.json
    if format is Format.html:
        refined = [columns, sort, conditions, pareto, within_errors, headline, at, picture, size, baseline, not pool]
        if mlflow is not None or merge is not None or any(refined):
            raise ConfigurationError(
                "--format html prints the report of studies in the store, where a reader sorts, filters and chooses "
                "columns: of the other options it takes STUDY and --store only"
            )
        _print_report(store, studies or [])
        return
    if size is not None and picture is None:
        raise ConfigurationError("--size is that of a picture: give --picture FILE too")
    if picture is not None:
        check_picture(picture, PICTURES)
    inches = None if size is None else _inches(size)
    if at is not None and not 0 <= at <= HIGHEST:
        raise ConfigurationError(f"--at {at:g} is no BrierLM: scores are from 0 to {HIGHEST}")
    if experiment and mlflow is None:
        raise ConfigurationError("--experiment says where in MLflow to look: give --mlflow URI too")
    names, files = names_and_files(studies or [], merge)
    rows = _rows(store, mlflow, experiment, files, names)
    if headline or at is not None:
        shown: dict[str, object] = {
            "--columns": columns,
            "--sort": sort,
            "--pareto": pareto,
            "--within-errors": within_errors,
        }
        shown |= {"--picture": picture, "--baseline": baseline}
        if unused := [option for option, value in shown.items() if value]:
            raise ConfigurationError(f"--headline prints sentences and no table: leave {', '.join(unused)} out")
        if not rows:
            raise ConfigurationError(f"there are no rows for a headline: {_where_rows_come_from(store, mlflow, files)}")
        _print_headline(_fulfilling(rows, conditions), store, mlflow is None, format, at)
        return
    kept = _fulfilling(pooled(rows) if pool else rows, conditions)
    view = View.parse(kept, columns, sort, pareto, within_errors)
    board = Leaderboard(kept)
    if picture is not None and not board.groups:
        raise ConfigurationError(f"there are no rows to draw: {_where_rows_come_from(store, mlflow, files)}")
    before = None if baseline is None else _older(baseline)
    plain = columns is not None or sort is not None or pareto is not None
    match format:
        case Format.table:
            print_table(board, console(), view)
        case Format.md:
            sys.stdout.write(markdown(board, view))
        case Format.latex:
            from pipelines.report.latex import latex

            sys.stdout.write(latex(board, view))
        case Format.csv:
            sys.stdout.write(records_csv(board, view) if plain else board.to_csv())
        case Format.json:
            sys.stdout.write(records_json(board, view) if plain else board.to_json())
    if before is not None:
        from pipelines.results.baseline import changes_table, compare_boards

        screen = console() if format is Format.table else error_console()
        screen.print()
        screen.print(changes_table(compare_boards(pooled(before) if pool else before, board)))
    if picture is not None:
        from pipelines.report.figure import draw

        draw(board, picture, size=inches)


def _inches(text: str) -> tuple[float, float]:
    from pipelines.report.figure import parse_size

    return parse_size(text)


def _where_rows_come_from(store: str | None, mlflow: str | None, files: list[Path]) -> str:
    """What to do where there are none."""
    from pipelines.common.shell_commands import shell_command
    from pipelines.store.opening import open_store
    from pipelines.store.study_names import how_to_begin

    if files:
        return "the files hold none"
    if mlflow is not None:
        return f"a study that is run with {shell_command([f'tracking.uri={mlflow}'])} sends its own there"
    return how_to_begin(open_store(store).uri)


def _older(path: Path) -> list[Entry]:
    """The rows of an older leaderboard.

    Raises:
        ConfigurationError: there is no such file.
        LeaderboardError: it is no leaderboard; says what it is.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.results.leaderboard import read_board

    if not path.exists() or path.is_dir():
        raise ConfigurationError(f"there is no leaderboard {path} to compare with")
    return list(read_board(path))


def _fulfilling(rows: list[Entry], conditions: list[str] | None) -> list[Entry]:
    from calm_bench.overrides import ConfigurationError
    from pipelines.results.view import filtered

    kept = filtered(rows, conditions or ())
    if rows and not kept:
        raise ConfigurationError(f"none of the {len(rows)} rows fulfils {' and '.join(conditions or ())}")
    return kept


def _print_report(store: str | None, names: list[str]) -> None:
    """Print the page that ``calm-bench report`` writes."""
    from pipelines.report.collect import collect, study_folders
    from pipelines.report.page import render
    from pipelines.store.opening import open_store

    where = open_store(store)
    sys.stdout.write(render(collect(where, study_folders(where, names))))


def _rows(
    store: str | None, mlflow: str | None, experiment: list[str] | None, files: list[Path], names: list[str]
) -> list[Entry]:
    """The named studies' rows of all sources, the store's or MLflow's before the files'."""
    from calm_bench.overrides import ConfigurationError
    from calm_bench.registry import did_you_mean
    from pipelines.results.leaderboard import read_board
    from pipelines.results.merging import merged
    from pipelines.results.stored import stored_leaderboards
    from pipelines.store.opening import open_store
    from pipelines.store.refs import StudyRef
    from pipelines.store.study_names import choose_studies, how_to_begin, studies_called

    if mlflow is not None:
        from pipelines.tracking.rows import entries_from_mlflow

        here, by_folder = "MLflow", {}
        entries = entries_from_mlflow(mlflow, experiment or ["calm-bench"])
    else:
        where = open_store(store)
        if not where.exists() and (store is not None or not files):
            raise ConfigurationError(f"there is no store {where.uri}: {how_to_begin(where.uri)}")
        here, by_folder = "the store", stored_leaderboards(where)
        entries = [entry for board in by_folder.values() for entry in board]
    sources = [(here, entries), *((str(path), list(read_board(path))) for path in files)]
    known = sorted({entry.study for _, rows in sources for entry in rows})
    wanted: set[tuple[str, str | None]] = set()
    for name in names:
        if name in known:
            wanted.add((name, None))
        elif folders := choose_studies([name], list(by_folder), here) if studies_called(name, by_folder) else []:
            wanted.update((StudyRef.of(folder).name, StudyRef.of(folder).identity) for folder in folders)
        else:
            begin = "" if known or files or mlflow is not None else f": {how_to_begin(open_store(store).uri)}"
            raise ConfigurationError(f"no finished study {name!r}{did_you_mean(name, known) if known else begin}")
    chosen = [
        (source, [row for row in rows if not names or {(row.study, None), (row.study, row.study_identity)} & wanted])
        for source, rows in sources
    ]
    if not files:
        return chosen[0][1]
    found = merged(chosen)
    for remark in found.remarks:
        say_on_stderr(remark)
    return list(found.entries)


def _print_headline(rows: list[Entry], store: str | None, from_files: bool, format: Format, at: float | None) -> None:
    from calm_bench.overrides import ConfigurationError
    from pipelines.results.headline import headlines
    from pipelines.results.trajectories import stored_trajectories
    from pipelines.store.opening import open_store

    if format not in (Format.table, Format.json):
        raise ConfigurationError("--headline is printed as text, or by --format json")
    found = headlines(rows, stored_trajectories(open_store(store)) if from_files else (), at)
    if not found:
        raise ConfigurationError(
            "there is no headline: it compares families of models of this project by FLOPs, and no row has both"
        )
    if format is Format.json:
        print_json([one.to_dict() for one in found])
        return
    screen = console()
    for number, one in enumerate(found):
        if len(found) > 1:
            say(screen, ("\n" if number else "") + f"Protocol {one.protocol_hash}", style="bold")
        for sentence in one.sentences:
            say(screen, f"- {sentence}")
