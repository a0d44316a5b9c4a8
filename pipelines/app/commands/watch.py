"""Watch a study that another process runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.app.commands.options import StorePath, console, end_if_unseen, print_json, say
from pipelines.execution.interrupt import leave_at_once

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.monitor.study_watcher import StudyWatcher
    from pipelines.monitor.watching import Watched


def watch(
    study: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="A study's name, its folder's, or a YAML file; else what is at work."),
    ] = None,
    store: StorePath = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines as they come, as in a pipe.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Say how it stands now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for each change.")] = False,
) -> None:
    """Show how a study gets on that runs in another terminal, or on another host with the same store.

    Nothing is locked or written. A store at an address (s3://...) is asked every 15 s, and shows what arrived there.
    Ends when the study ends; exit code 1 if no driver is at work any more.
    """
    from pipelines.common.screen import is_live
    from pipelines.common.shell_commands import shell_command
    from pipelines.monitor.study_watcher import StudyWatcher
    from pipelines.store.opening import open_store

    watcher = StudyWatcher(open_store(store))
    folder, others = watcher.choose(study)
    screen = console()
    if others and not as_json:
        command = shell_command(["calm-bench", "watch", "NAME", *(() if store is None else ("--store", store))])
        say(screen, f"{folder.name}; others: {', '.join(others)} ({command})", style="yellow")
    try:
        if once and not as_json:
            ended = _print_once(watcher.poll(folder), screen)
        elif as_json:
            ended = _print_json(folder, watcher, once)
        elif plain or not is_live(screen):
            ended = _print_lines(folder, watcher, screen)
        else:
            ended = _show(folder, watcher, screen)
    except KeyboardInterrupt:
        # Whoever looks has seen enough, and nothing ends by it.
        leave_at_once()
    if ended.stand == "left":
        raise typer.Exit(1)


def _print_json(folder: Path, watcher: StudyWatcher, once: bool) -> Watched:
    last: dict[str, Any] | None = None
    while True:
        watched = watcher.poll(folder)
        told = watched.to_dict()
        # The time alone is no change.
        changed = told | {"since": 0, "elapsed_s": 0}
        if changed != last:
            print_json(told, indent=None)
            end_if_unseen(sys.stdout)
            last = changed
        if once or watched.stand != "at work":
            return watched
        time.sleep(watcher.poll_s)


def _print_once(watched: Watched, screen: Console) -> Watched:
    from pipelines.monitor.panel import panel

    screen.print(panel(watched.view, screen.width, note=watched.note))
    return watched


def _print_lines(folder: Path, watcher: StudyWatcher, screen: Console) -> Watched:
    from pipelines.monitor.display import print_said
    from pipelines.monitor.tracker import summary

    driver, next_number = "", 0
    while True:
        watched = watcher.poll(folder)
        said = watched.view.said
        if watched.driver != driver:
            # Another driver counts its lines anew.
            driver, next_number = watched.driver, 0
            say(screen, f"{watched.view.study}: {summary(watched.view)}")
            next_number = max(0, said[-1].number - 4) if said else 0
        for line in said:
            if line.number >= next_number:
                print_said(screen, line)
                end_if_unseen(screen.file)
                next_number = line.number + 1
        if watched.stand != "at work":
            say(screen, watched.note)
            return watched
        time.sleep(watcher.poll_s)


def _show(folder: Path, watcher: StudyWatcher, screen: Console) -> Watched:
    """In a terminal it stays through a driver's death, for the next driver, until the study ends."""
    from rich.live import Live

    from pipelines.monitor.display import REFRESH_S
    from pipelines.monitor.panel import panel

    watched = watcher.poll(folder)
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            next_poll = time.monotonic() + watcher.poll_s
            while True:
                # Ages go on between two looks.
                live.update(panel(watched.view, screen.width, screen.height, watched.note), refresh=True)
                end_if_unseen(screen.file)
                if watched.stand == "finished":
                    return watched
                if (left := next_poll - time.monotonic()) <= 0:
                    break
                time.sleep(min(left, REFRESH_S))
            watched = watcher.poll(folder)
