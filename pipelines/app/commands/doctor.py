"""Is this machine fit to run studies?"""

from __future__ import annotations

import typer

from pipelines.app.commands.options import (
    StorePath,
    console,
    say,
)


def doctor(store: StorePath = None) -> None:
    """Check that this machine can run studies; says what to change where it cannot."""
    from pipelines.app.doctor import examine

    screen = console()
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    failed = False
    for finding in examine(store):
        screen.print(f"[{styles[finding.level]}]{finding.level:8}[/] ", end="")
        say(screen, f"{finding.topic}: {finding.text}")
        failed = failed or finding.level == "error"
    if failed:
        raise typer.Exit(1)
