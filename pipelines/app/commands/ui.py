"""MLflow's and Optuna's own pages for a store."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.app.commands.options import StorePath, console, say


def ui(
    store: StorePath = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Of MLflow (default: 5000).")] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Optuna's pages too (pip install optuna-dashboard).")
    ] = True,
) -> None:
    """Show the store in MLflow's and Optuna's own pages, until Ctrl-C. Both listen on this machine alone."""
    import tempfile
    from pathlib import Path

    from pipelines.app.ui_servers import UiServers, study_lines
    from pipelines.store.opening import open_store

    where = open_store(store)
    where.bring_studies()
    with tempfile.TemporaryDirectory(prefix="calm-bench-ui-") as folder, UiServers(where, port, dashboard) as servers:
        say(console(), "MLflow starts, which takes some seconds ...", style="dim")
        servers.start(Path(folder))
        say(console(), f"MLflow            {servers.mlflow}")
        if servers.dashboard is not None:
            say(console(), f"optuna-dashboard  {servers.dashboard.address}")
        if servers.without_dashboard is not None:
            say(console(), servers.without_dashboard, style="yellow")
        for line in study_lines(where, servers):
            say(console(), line)
        say(console(), "Ctrl-C ends both.", style="dim")
        servers.wait()
