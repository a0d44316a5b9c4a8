"""The process of the ``calm-bench`` command: signals are heard before anything is imported that takes its time.

Exit codes by which shells and schedulers know a signal: 129 for SIGHUP, 130 for SIGINT (Ctrl-C), 143 for SIGTERM. What
was ignored when the process began (SIGHUP under ``nohup``) stays ignored.
"""

from __future__ import annotations

from pipelines.execution.interrupt import end_on_signals, interrupt_on_signals, leave_at_once


def main() -> None:
    """Run the command; see :func:`pipelines.app.cli.main` for the other exit codes."""
    interrupt_on_signals()
    try:
        from pipelines.app.cli import main as command

        command()
    except KeyboardInterrupt:
        leave_at_once()
    finally:
        # All is done: a signal during Python's own exit needs nothing else.
        end_on_signals()
