"""Commands on studies: run one, price one, list what is shipped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import (
    DEFAULT_STUDY,
    AsJson,
    Overrides,
    StorePath,
    StudyName,
    console,
    named_study,
    say,
)


def run(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")] = False,
) -> None:
    """Run a study: train, score, and print its leaderboard. What is in the store already is not run again."""
    from pipelines.leaderboard.leaderboard import Leaderboard
    from pipelines.leaderboard.pooling import pooled
    from pipelines.leaderboard.render import print_table
    from pipelines.sweep.running import run_and_report

    screen = console()
    resolved = named_study(study, overrides, store, local)
    report = run_and_report(resolved, screen, retry_failed)
    screen.print()
    print_table(Leaderboard(pooled(report.leaderboard)), screen)
    screen.print()
    if report.correlations:
        say(screen, "BrierLM against cross-entropy along training, with 95 % intervals")
        for line in report.correlations:
            say(screen, f"  {line}")
        screen.print()
    say(screen, f"Results      {report.folder}")
    for name, suffix in (("Leaderboard", "md"), ("Picture", "png")):
        if suffix in report.files:
            say(screen, f"{name:12} {report.files[suffix]}")
    if report.mlflow is not None:
        say(screen, f"MLflow       {report.mlflow}")
    for outcome in report.outcomes:
        if outcome.state == "pruned":
            say(screen, f"Trial {outcome.number} ({outcome.label}) pruned: {outcome.error}", style="yellow")
        elif outcome.violations:
            broken = ", ".join(outcome.violations)
            say(screen, f"Trial {outcome.number} ({outcome.label}) violates {broken}", style="yellow")
    for outcome in report.failed:
        say(screen, f"Trial {outcome.number} ({outcome.label}) {outcome.state}: {outcome.error}", style="red")
    if report.failed:
        raise typer.Exit(1)


def plan(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Say what a study will do and what it will cost, without doing it."""
    from pipelines.planning.plan import plan_study
    from pipelines.planning.render import print_plan
    from pipelines.store.store import Store

    resolved = named_study(study, overrides, store)
    planned = plan_study(resolved, Store(Path(resolved.execution.store).expanduser()))
    if as_json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        print_plan(planned, console())


def studies(
    show: Annotated[str | None, typer.Option("--show", help="Print this study's complete configuration.")] = None,
) -> None:
    """List the studies that come with the package."""
    from pipelines.sweep.catalogue import resolve_study, shipped_studies

    if show is not None:
        from pipelines.sweep.study import resolved_yaml

        sys.stdout.write(resolved_yaml(resolve_study(show)))
        return
    found = shipped_studies()
    width = max((len(study.name) for study in found), default=0)
    for study in found:
        say(console(), f"{study.name:{width}}  {' '.join(study.description.split())}")
