"""The store in MLflow, made from its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.app.commands.options import AsJson, StorePath, console, print_json, say

if TYPE_CHECKING:
    from pipelines.tracking.sync import Synced

app = typer.Typer(name="mlflow", help="The store in MLflow.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``sync`` a subcommand while it is the only one."""


@app.command()
def sync(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY", help="Names of studies, or their YAML files (default: all).")
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
    as_json: AsJson = False,
) -> None:
    """Send to MLflow what the store holds and MLflow lacks.

    In an empty tracking store this makes all of it again. A second time it changes nothing.
    """
    from calm_bench.overrides import ConfigurationError
    from pipelines.store.opening import open_store
    from pipelines.store.study_names import choose_studies, how_to_begin
    from pipelines.tracking.study_files import begun_studies
    from pipelines.tracking.sync import set_database_aside, sync_study

    where = open_store(store)
    where.studies.folders(complete=True)
    folders = begun_studies(where)
    if not folders:
        raise ConfigurationError(f"no study has run in the store {where.uri}: {how_to_begin(where.uri)}")
    chosen = choose_studies(studies or (), folders, where.uri)
    if anew and (studies or uri):
        raise ConfigurationError("--anew makes all of mlflow.db in the store again: give neither STUDY nor --uri")
    kept = set_database_aside(where.root) if anew else None
    if kept is not None and not as_json:
        say(console(), f"the old database is kept as {kept}")
    done = []
    for folder in chosen:
        done.append(synced := sync_study(where, folder, uri, experiment, anew))
        if not as_json:
            _tell(synced)
    if as_json:
        print_json({"kept": None if kept is None else str(kept), "studies": [_to_dict(one) for one in done]})
    if any(synced.problem is not None for synced in done):
        raise typer.Exit(1)


def _tell(synced: Synced) -> None:
    from pipelines.tracking.registry import without_registry

    screen, name = console(), synced.folder.name
    if synced.problem is not None:
        say(screen, f"{name}  not sent: {synced.problem}", style="red")
        return
    say(screen, f"{name}  {_what_was_sent(synced)}")
    if synced.page is not None:
        say(screen, f"  leaderboard: {synced.page}")
    if synced.unregistered is not None:
        say(screen, f"MLflow {without_registry(synced.unregistered)}", style="yellow")


def _what_was_sent(synced: Synced) -> str:
    trials, address = f"{synced.trials} {'trial' if synced.trials == 1 else 'trials'}", synced.address
    if not synced.parts:
        return f"{trials} already all in {address}"
    if not synced.trials_sent:
        return f"{trials} already in {address}; what else it holds of the study was brought up to date"
    if synced.trials_sent < synced.trials:
        return f"{synced.trials_sent} of {trials} sent to {address}, which had the others"
    return f"{trials} sent to {address}"


def _to_dict(synced: Synced) -> dict[str, Any]:
    return {
        "study": synced.folder.name,
        "address": synced.address or None,
        "leaderboard": synced.page,
        "trials": synced.trials,
        "sent": synced.parts > 0,
        "trials_sent": synced.trials_sent,
        "problem": synced.problem,
        "models_not_registered": synced.unregistered,
    }
