"""The screens of MLflow and Optuna for a store."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.app.commands.options import StorePath, console, say


def ui(
    store: StorePath = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Of MLflow (default: 5000).")] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Optuna's pages too (pip install 'calm-bench\\[ui]').")
    ] = True,
) -> None:
    """Show the store in MLflow's and Optuna's own pages, until Ctrl-C. Both listen on this machine alone."""
    import tempfile
    from pathlib import Path

    from pipelines.app.ui_servers import Screens, study_lines
    from pipelines.store.opening import open_store

    where = open_store(store)
    where.bring_studies()
    with tempfile.TemporaryDirectory(prefix="calm-bench-ui-") as folder, Screens(where, port, dashboard) as screens:
        say(console(), "MLflow starts, which takes some seconds ...", style="dim")
        screens.start(Path(folder))
        say(console(), f"MLflow            {screens.mlflow}")
        if screens.dashboard is not None:
            say(console(), f"optuna-dashboard  {screens.dashboard.address}")
        for line in study_lines(where, screens):
            say(console(), line)
        say(console(), "Ctrl-C ends both.", style="dim")
        screens.wait()
