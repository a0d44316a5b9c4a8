"""The store in MLflow, made from its files."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.app.commands.options import StorePath, console, say

app = typer.Typer(name="mlflow", help="The store in MLflow.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``sync`` a subcommand while it is the only one."""


@app.command()
def sync(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY", help="Names of studies (default: all).")
    ] = None,
    store: StorePath = None,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="(default: the study's, then MLFLOW_TRACKING_URI, then mlflow.db in the store)."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Of MLflow (default: what the study says).")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Make mlflow.db in the store again, as after the store was moved.")
    ] = False,
) -> None:
    """Send to MLflow what the store holds and MLflow lacks.

    In an empty tracking store this makes all of it again. A second time it changes nothing.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.store.opening import open_store
    from pipelines.store.study_names import choose_studies
    from pipelines.tracking.registry import without_registry
    from pipelines.tracking.study_files import begun_studies
    from pipelines.tracking.sync import set_database_aside, sync_study

    where = open_store(store)
    where.studies.folders(complete=True)
    folders = begun_studies(where)
    if not folders:
        raise ConfigurationError(f"no study has run in the store {where.uri} (--store names another one)")
    chosen = choose_studies(studies or (), folders, where.uri)
    if anew and (studies or uri):
        raise ConfigurationError("--anew makes all of mlflow.db in the store again: give neither STUDY nor --uri")
    if anew and (kept := set_database_aside(where.root)) is not None:
        say(console(), f"the old database is kept as {kept}")
    problems = 0
    for folder in chosen:
        synced = sync_study(where, folder, uri, experiment)
        if synced.problem is not None:
            problems += 1
            say(console(), f"{folder.name}  not sent: {synced.problem}", style="red")
            continue
        trials = f"{synced.trials} {'trial' if synced.trials == 1 else 'trials'}"
        say(console(), f"{folder.name}  {trials} {'sent to' if synced.parts else 'already all in'} {synced.address}")
        if synced.page is not None:
            say(console(), f"  leaderboard: {synced.page}")
        if synced.unregistered is not None:
            say(console(), f"MLflow {without_registry(synced.unregistered)}", style="yellow")
    if problems:
        raise typer.Exit(1)
