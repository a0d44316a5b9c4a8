"""MLflow's and Optuna's own pages for a store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipelines.app.commands.options import StorePath, console, say


def ui(
    store: StorePath = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Of MLflow (default: 5000).")] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Optuna's pages too (pip install optuna-dashboard).")
    ] = True,
    browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the leaderboard (default: where there is a screen).")
    ] = None,
) -> None:
    """Show the store in MLflow's and Optuna's own pages, until Ctrl-C. Both listen on this machine alone.

    MLflow opens on the trials sorted by BrierLM; a second page shows BrierLM against FLOPs.
    """
    import tempfile
    import webbrowser
    from pathlib import Path

    from pipelines.app.ui_servers import UiServers, study_lines
    from pipelines.store.opening import open_store
    from pipelines.tracking.views import charts_page, leaderboard_page

    where = open_store(store)
    where.studies.folders(complete=True)
    with tempfile.TemporaryDirectory(prefix="calm-bench-ui-") as folder, UiServers(where, port, dashboard) as servers:
        say(console(), "MLflow starts, which takes some seconds ...", style="dim")
        servers.start(Path(folder))
        say(console(), f"MLflow            {servers.mlflow}")
        boards = servers.boards()
        for experiment in boards:
            say(console(), f"  leaderboard     {leaderboard_page(servers.mlflow, experiment)}")
            say(console(), f"  against FLOPs   {charts_page(servers.mlflow, experiment)}")
        if servers.dashboard is not None:
            say(console(), f"optuna-dashboard  {servers.dashboard.address}")
        if servers.without_dashboard is not None:
            say(console(), servers.without_dashboard, style="yellow")
        for line in study_lines(where, servers):
            say(console(), line)
        say(console(), "Ctrl-C ends both.", style="dim")
        if browser or (browser is None and _has_screen()):
            page = leaderboard_page(servers.mlflow, boards[0]) if boards else servers.mlflow
            webbrowser.open(page)
        servers.wait()


def _has_screen() -> bool:
    """Whether somebody sits here who would see a browser: a text browser must not take the terminal."""
    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return has_display and sys.stdout.isatty()
