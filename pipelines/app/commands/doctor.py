"""Is this machine fit to run studies?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from pipelines.app.commands.options import AsJson, StorePath, console, print_json, say


def doctor(store: StorePath = None, as_json: AsJson = False) -> None:
    """Check that this machine can run studies; says what to change where it cannot."""
    from pipelines.app.doctor import examine

    if as_json:
        found = list(examine(store))
        failed = any(finding.level == "error" for finding in found)
        print_json({"findings": [asdict(finding) for finding in found], "failed": failed})
        if failed:
            raise typer.Exit(1)
        return
    screen = console()
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    failed = False
    for finding in examine(store):
        screen.print(f"[{styles[finding.level]}]{finding.level:8}[/] ", end="")
        say(screen, f"{finding.topic}: {finding.text}")
        failed = failed or finding.level == "error"
    if failed:
        raise typer.Exit(1)
