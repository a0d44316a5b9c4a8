"""The ``calm-bench`` command.

Only what every command needs is imported here: ``calm-bench --help`` answers before torch could be found on disk. What
tells of errors is too: where no file can be opened any more, nothing else can be imported.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from typing import Annotated

import typer

from calm_bench.caches import settle_caches
from calm_bench.errors import FAILED, INTERRUPTED, CalmBenchError
from calm_bench.kept_folders import keeping_opened
from calm_bench.proxies import settle_proxies
from calm_bench.shell_limits import lifted
from calm_bench.working_directory import check_working_directory, is_removed
from pipelines.app.commands import (
    check,
    compare,
    context_sweep,
    doctor,
    evaluate,
    export,
    generate,
    leaderboard,
    lm_eval,
    mlflow,
    probe,
    report,
    sample_size,
    schema,
    store,
    study,
    ui,
    watch,
)
from pipelines.common.at_end import run_at_end
from pipelines.common.foreign_bars import without_foreign_bars
from pipelines.common.redact import redact
from pipelines.common.sanitize import without_controls
from pipelines.common.screen import screens, unshown
from pipelines.execution.interrupt import exit_code, forget_signals, leave_at_once

app = typer.Typer(
    name="calm-bench",
    help="Experiments on continuous autoregressive language models: from raw text to a leaderboard of quality "
    "(BrierLM) against compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(study.run)
app.command()(study.plan)
app.command()(watch.watch)
app.command()(leaderboard.leaderboard)
app.command()(report.report)
app.command("eval")(evaluate.evaluate)
app.command("lm-eval", context_settings=lm_eval.SETTINGS)(lm_eval.lm_eval)
app.command()(compare.compare)
app.command()(check.check)
app.command("context-sweep")(context_sweep.context_sweep)
app.command("sample-size")(sample_size.sample_size)
app.command()(probe.probe)
app.command()(generate.generate)
app.command()(export.export)
app.command()(export.push)
app.command()(study.studies)
app.command()(schema.settings)
app.command()(schema.schema)
app.add_typer(store.app)
app.add_typer(mlflow.app)
app.command()(ui.ui)
app.command()(doctor.doctor)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        from calm_bench import __version__

        print(__version__)
        raise typer.Exit
    if debug:
        os.environ[_DEBUG] = "1"
    if context.invoked_subcommand != "lm-eval" and (sys.stderr is None or not sys.stderr.isatty()):
        # Whatever a command imports; lm-eval's own command prints what lm-eval prints.
        without_foreign_bars()


_DEBUG = "CALM_BENCH_DEBUG"
PLACES = "--store, --output, --picture, --rows"
ANOTHER_PLACE = f"give another place ({PLACES}) or make room there"
WAYS_OUT = {
    errno.ENOSPC: f"{ANOTHER_PLACE}; what is finished is kept, and the same command goes on",
    errno.EDQUOT: f"{ANOTHER_PLACE}; what is finished is kept, and the same command goes on",
    errno.EROFS: "it can be read (leaderboard, eval, compare, generate, export --output ELSEWHERE) and not written to",
    errno.EACCES: f"give another place ({PLACES}), or have its owner allow it",
    errno.EPERM: f"give another place ({PLACES})",
    errno.ENAMETOOLONG: f"no file has so long a name: if a place is meant ({PLACES}), give a shorter one",
    errno.EFBIG: "let files be larger",
    errno.EISDIR: "a folder stands where a file belongs: move it away",
    errno.ENOTDIR: "a file stands where a folder belongs: move it away, or name another place",
    errno.EMFILE: "raise the number of open files",
}
"""What to do about errors of the machine, which carry no advice of their own."""
LIMITS = {errno.EFBIG: "f", errno.EMFILE: "n"}
"""Options of ``ulimit`` that some of them come from."""


def main() -> None:
    """Run the command. An error is one message on stderr, and carries its exit code (``calm_bench.errors``)."""
    # No command has begun yet: a signal before this would have ended the process.
    forget_signals()
    # At the end the system takes back what there is: to look through it for garbage first takes up to half a second.
    atexit.register(gc.freeze)
    with screens():
        _run()


def _run() -> None:
    try:
        check_working_directory()
        settle_caches()
        settle_proxies()
        with keeping_opened():
            app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _complain("interrupted; what the last checkpoints hold is kept", INTERRUPTED)
            leave_at_once()
        if (cut := _hidden_end_of_file(ended)) is not None:
            if os.environ.get(_DEBUG):
                raise cut from None
            sys.exit(_complain(*_told(cut)))
        if (missing := unshown()) is not None:
            if missing:
                _complain(missing, FAILED)
            sys.exit(ended.code or FAILED)
        raise
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        code = _complain(*_told(error))
        if exit_code() is not None:
            # Whatever else a signal brought about, but for the last words of who stopped politely.
            run_at_end()
            leave_at_once()
        sys.exit(code)


def _hidden_end_of_file(ended: SystemExit) -> EOFError | None:
    """A file that ended too early: typer takes it for the end of what a user types, and says "Aborted." of it."""
    aborted = ended.__context__
    cause = aborted.__cause__ if isinstance(aborted, typer.Abort) else None
    return cause if isinstance(cause, EOFError) else None


def _told(error: Exception) -> tuple[str, int]:
    """The message and the exit code of an error; what nobody foresaw says where to look."""
    text = str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None and is_removed():
        return "the folder in which this was started has been removed meanwhile: give the command in another", FAILED
    if isinstance(error, PermissionError) and not os.access(os.curdir, os.X_OK) and _is_relative(error.filename):
        return "the folder in which this was started may not be searched: go to another (cd)", FAILED
    if isinstance(error, OSError) and error.errno in WAYS_OUT and not isinstance(error, CalmBenchError):
        where = "" if error.filename is None else f"{error.filename}: "
        limit = LIMITS.get(error.errno)
        command = "" if limit is None else f" ({lifted(limit)})"
        return f"{where}{(error.strerror or text).lower()}: {WAYS_OUT[error.errno]}{command}", FAILED
    if not isinstance(error, CalmBenchError):
        from pipelines.common.compiled_modules import way_out
        from pipelines.common.shell_commands import shell_command

        if (advice := way_out(type(error).__name__, text)) is not None:
            return advice, FAILED
        where = f"{shell_command(['calm-bench', '--debug', *sys.argv[1:]])} shows where"
        return f"{type(error).__name__}: {text} ({where})", FAILED
    if error.exit_code == INTERRUPTED:
        from pipelines.common.shell_commands import of_mask
        from pipelines.execution.interrupt import this_command

        command = this_command()
        text = f"{text}\n{command}{of_mask(command)}"
    return text, error.exit_code


def _is_relative(name: object) -> bool:
    return isinstance(name, str) and not os.path.isabs(name)


def _complain(message: str, code: int) -> int:
    # Names and files of others stand in messages.
    print(f"calm-bench: {without_controls(redact(message))}", file=sys.stderr)
    return code
