"""Commands on studies: run one, price one, list what is shipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calm_bench.devices import resolve_device
from pipelines.app.commands.options import (
    DEFAULT_STUDY,
    AsJson,
    Overrides,
    StorePath,
    StudyName,
    console,
    error_console,
    named_study,
    print_json,
    say,
    say_on_stderr,
)
from pipelines.common.screen import take_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pipelines.app.run_context import RunContext
    from pipelines.app.running import Report
    from pipelines.planning.forecast import Forecast
    from pipelines.store.store import Store
    from pipelines.study.config import Study

SHOWN_ROWS = 100
"""Of a board at the end of a run; calm-bench leaderboard and the board's files hold all of them."""
MOST_IMPOSSIBLE = 5
BudgetLimit = Annotated[
    str | None,
    typer.Option(
        "--budget", help="Refuse to start (exit code 3) what costs more: 2h, 1e15 (training FLOPs), 500gpu-hours."
    ),
]


def run(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Run the other trials where some have settings that do not fit.")
    ] = False,
    budget: BudgetLimit = None,
    machine: Annotated[str, typer.Option("--machine", help="Where it will run, for --budget: local, or h100x8.")] = (
        "local"
    ),
    no_calibration: Annotated[
        bool, typer.Option("--no-calibration", help="Do not measure this machine before a long run.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Progress as lines, in a terminal too.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Of progress, warnings and errors only; the leaderboard is printed.")
    ] = False,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Add every line of progress to this file, with date and time.")
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option("--notify", help="Start this command at the end; CALM_BENCH_STATE and others say what ended."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON at the end; all else goes to standard error.")
    ] = False,
) -> None:
    """Run a study: train, score, and print its leaderboard. What is in the store already is not run again."""
    from pipelines.app.notify import notifying
    from pipelines.app.run_context import RunContext
    from pipelines.common.foreign_bars import without_foreign_bars
    from pipelines.common.screen import is_live
    from pipelines.monitor.display import progress_for
    from pipelines.planning.preflight import check_study

    screen = error_console() if as_json else console()
    resolved = named_study(study, overrides, store, local)
    if plain or quiet or resolved.execution.backend == "local" or not is_live(screen):
        # Where standard error is no terminal, that is so from the beginning.
        without_foreign_bars()
    for note in check_study(resolved, fetch=True):
        say_on_stderr(note)
    if resolved.execution.backend == "local" and resolved.execution.device != "auto":
        # Whatever the machine has is right for auto, and torch takes a second to ask.
        resolve_device(resolved.execution.device)
    progress = progress_for(screen, "quiet" if quiet else "plain" if plain else "auto", log_file)
    results: list[str] = []
    with notifying(notify, resolved.name, results, say_on_stderr):
        with RunContext.of(resolved) as context:
            resolved = _settled(resolved, context.store)
            from pipelines.app.running import run_and_report
            from pipelines.report.tables import print_table
            from pipelines.results.leaderboard import Leaderboard
            from pipelines.results.pooling import pooled

            def show(leaderboard: Leaderboard) -> None:
                screen.print()
                print_table(Leaderboard(pooled(leaderboard)), screen, most=SHOWN_ROWS)
                screen.print()

            expected = _forecast_of(resolved, context, screen, budget, machine, may_measure=not no_calibration)
            if expected is not None and not skip_invalid:
                _refuse_impossible(expected.impossible, "the same command with --skip-invalid runs the others")
            report = run_and_report(resolved, screen, retry_failed, expected, show, context, progress)
            results.append(str(report.folder))
        _tell(report, resolved, screen)
        if as_json:
            print_json(report.to_dict() | {"headline": _headlines(report)})
        if reason := take_loss():
            say_on_stderr(f"standard output took no more ({reason}); leaderboard and report are in {report.folder}")
        if report.failed:
            raise typer.Exit(1)


def _settled(study: Study, store: Store) -> Study:
    """The study with the text that its objective is measured on; says on stderr what is not as it should be."""
    from pipelines.planning.objective_text import settle_objective_text

    settled, note = settle_objective_text(study, store)
    if note is not None:
        say_on_stderr(note)
    return settled


def _tell(report: Report, study: Study, screen: Console) -> None:
    """What came of a run, and where it is."""
    if report.correlations:
        say(screen, "BrierLM against cross-entropy along training, with 95 % intervals")
        for line in report.correlations:
            say(screen, f"  {line}")
        screen.print()
    for sentence in _headlines(report):
        say(screen, f"- {sentence}")
    screen.print()
    if "://" in study.execution.store:
        say(screen, f"Store        {study.execution.store}; on this machine:")
    say(screen, f"Results      {report.folder}")
    for name, suffix in (("Leaderboard", "md"), ("Picture", "png")):
        if suffix in report.files:
            say(screen, f"{name:12} {report.files[suffix]}")
    if report.page is not None:
        say(screen, f"Report       {report.page}")
    if report.mlflow is not None:
        say(screen, f"MLflow       {report.mlflow}")
    if report.expected is not None:
        first, *others = report.expected.lines()
        say(screen, f"Time         {first}")
        for line in others:
            say(screen, f"           {line}")
    for outcome in report.outcomes:
        if outcome.state == "pruned":
            say(screen, f"Trial {outcome.number} ({outcome.label}) pruned: {outcome.error}", style="yellow")
        elif outcome.violations:
            broken = ", ".join(outcome.violations)
            say(screen, f"Trial {outcome.number} ({outcome.label}) violates {broken}", style="yellow")
    for outcome in report.failed:
        say(screen, f"Trial {outcome.number} ({outcome.label}) {outcome.state}: {outcome.error}", style="red")


def _headlines(report: Report) -> list[str]:
    """The answers of the headline, where there are rows."""
    from pipelines.results.headline import headlines
    from pipelines.results.trajectories import read_trajectories

    found = headlines(report.leaderboard, read_trajectories(report.folder))
    return [sentence for one in found for sentence in one.brief]


def plan(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    machines: Annotated[
        list[str] | None,
        typer.Option("--machine", help="Where it would run: local, or GPUs as h100 or h100x8. Several may be given."),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option("--mfu", help="Share of a GPU's peak that training reaches; unset, by kind."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first: a few real steps of the study's models.")
    ] = False,
    budget: BudgetLimit = None,
    price: Annotated[
        float | None, typer.Option("--price-per-hour", min=0.0, help="Of the whole machine, in any currency.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every trial of a long search.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a study will do and what it will cost, without doing it.

    Starts nothing; only --calibrate works for some seconds. Exit code 2: some trials cannot run; 3: it costs more than
    --budget.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.planning.estimate import estimate
    from pipelines.planning.forecast import SpeedCache, default_machines
    from pipelines.planning.limit import check_limit, parse_limit
    from pipelines.planning.machines import machine_named
    from pipelines.planning.plan import workloads_in
    from pipelines.planning.planner import plan_study
    from pipelines.planning.preflight import check_study
    from pipelines.report.plan_table import SHOWN_TRIALS, print_plan
    from pipelines.store.opening import open_store

    resolved = named_study(study, overrides, store)
    limit = None if budget is None else parse_limit(budget)
    for note in check_study(resolved):
        say_on_stderr(note)
    opened = open_store(resolved.execution.store)
    resolved = _settled(resolved, opened)
    names = machines or default_machines(resolved.execution)
    books = [SpeedCache(machine_named(name, resolved.execution, mfu), say_on_stderr) for name in names]
    planned = plan_study(resolved, opened, books[0].known)
    if calibrate:
        here = [book for book in books if book.machine.is_this]
        if not here:
            raise ConfigurationError("--calibrate measures this machine: name it too (--machine local)")
        for book in here:
            book.measure(workloads_in(planned), again=True)
        planned = plan_study(resolved, opened, books[0].known)
    estimates = [estimate(planned, opened, book.machine, book.calibration) for book in books]
    if as_json:
        told = [each.to_dict() | {"price": each.price(price)} for each in estimates]
        print_json(planned.to_dict() | {"estimates": told})
    else:
        print_plan(planned, console(), estimates, None if every else SHOWN_TRIALS, price)
    if limit is not None:
        check_limit(limit, planned, estimates[0])
    _refuse_impossible(planned.impossible, "calm-bench run of this with --skip-invalid runs the others")


def _refuse_impossible(impossible: Sequence[str], way_out: str) -> None:
    """
    Raises:
        ConfigurationError: some trials of a plan cannot run; says which.
    """
    from calm_bench.overrides import ConfigurationError

    if impossible:
        listed = "".join(f"\n  {one}" for one in impossible[:MOST_IMPOSSIBLE])
        more = len(impossible) - MOST_IMPOSSIBLE
        listed += f"\n  and {more} more" if more > 0 else ""
        count = "one trial" if len(impossible) == 1 else f"{len(impossible)} trials"
        raise ConfigurationError(f"{count} cannot run ({way_out}):{listed}")


def studies(
    show: Annotated[str | None, typer.Option("--show", help="Print this study's complete configuration.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the studies that come with the package."""
    from pipelines.study.catalogue import resolve_study, shipped_studies

    if show is not None:
        from pipelines.store.study_record import resolved_yaml

        configuration = resolve_study(show)
        if as_json:
            print_json(configuration.model_dump(mode="json"))
        else:
            sys.stdout.write(resolved_yaml(configuration))
        return
    found = shipped_studies()
    if as_json:
        print_json([{"name": study.name, "description": study.description} for study in found])
        return
    width = max((len(study.name) for study in found), default=0)
    for study in found:
        say(console(), f"{study.name:{width}}  {' '.join(study.description.split())}")


def _forecast_of(
    study: Study, context: RunContext, screen: Console, budget: str | None, machine: str, may_measure: bool
) -> Forecast | None:
    """What a run is expected to take; None where that cannot be told and nothing depends on it."""
    from calm_bench.overrides import ConfigurationError
    from pipelines.planning.forecast import forecast
    from pipelines.planning.limit import parse_limit

    def notify(text: str) -> None:
        say(screen, text, style="dim")

    limit = None if budget is None else parse_limit(budget)
    try:
        return forecast(study, context.store, notify, limit, machine, may_measure)
    except ConfigurationError as error:
        if limit is not None or study.budget is not None:
            raise
        # Such as a tokenizer whose vocabulary is not known before it is downloaded.
        say(screen, f"no estimate: {error}", style="dim")
        return None
