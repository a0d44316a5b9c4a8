"""The ``calm-bench`` command.

Only what every command needs is imported here: ``calm-bench --help`` answers before torch could be found on disk.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from calm_bench.config import Study

DEFAULT_STUDY = "k-ablation"
INTERRUPTED = 130
"""Exit code by which shells know Ctrl-C."""

app = typer.Typer(
    name="calm-bench",
    help="Experiments on continuous autoregressive language models: from raw text to a leaderboard of quality "
    "(BrierLM) against compute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyName = Annotated[str, typer.Argument(metavar="[STUDY]", help="A shipped study, or a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the study's.")
]
StorePath = Annotated[Path | None, typer.Option("--store", help="Folder of all results; runs where unset.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


TokenizerName = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Folder of a tokenizer, or bytes, where the model brings none or another one."),
]
AutoencoderFolder = Annotated[
    Path | None, typer.Option("--autoencoder", help="Folder of a released model's autoencoder, if it carries none.")
]


class Format(StrEnum):
    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


class Method(StrEnum):
    exact = "exact"
    batch = "batch"


@app.command()
def run(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")] = False,
) -> None:
    """Run a study: train, score, and print its leaderboard. What is in the store already is not run again."""
    from pipelines.render import print_table
    from pipelines.running import run_and_report

    console = _console()
    resolved = _study(study, overrides, store, local)
    report = run_and_report(resolved, console, retry_failed)
    console.print()
    print_table(report.leaderboard, console)
    console.print()
    _say(console, f"Results      {report.folder}")
    for name, suffix in (("Leaderboard", "md"), ("Picture", "png")):
        if suffix in report.files:
            _say(console, f"{name:12} {report.files[suffix]}")
    if report.mlflow is not None:
        _say(console, f"MLflow       {report.mlflow}")
    for outcome in report.failed:
        _say(console, f"Trial {outcome.number} ({outcome.label}) {outcome.state}: {outcome.error}", style="red")
    if report.failed:
        raise typer.Exit(1)


@app.command()
def plan(
    study: StudyName = DEFAULT_STUDY,
    overrides: Overrides = None,
    store: StorePath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a study will do and what it will cost, without doing it."""
    import json

    from pipelines.plan import plan_study
    from pipelines.plan_render import print_plan
    from pipelines.store import Store

    resolved = _study(study, overrides, store)
    planned = plan_study(resolved, Store(Path(resolved.execution.store).expanduser()))
    if as_json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        print_plan(planned, _console())


@app.command()
def leaderboard(
    studies: Annotated[list[str] | None, typer.Argument(help="Names of studies [default: all].")] = None,
    store: StorePath = None,
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Read from this tracking URI, not from files.")] = None,
    experiment: Annotated[str, typer.Option("--experiment", help="Of MLflow.")] = "calm-bench",
) -> None:
    """Print the leaderboard of all studies in the store, or in MLflow."""
    from calm_bench.overrides import ConfigurationError
    from calm_bench.registry import did_you_mean
    from pipelines.leaderboard import Leaderboard
    from pipelines.models import stored_leaderboards
    from pipelines.render import markdown, print_table
    from pipelines.store import Store

    if mlflow is not None:
        from pipelines.mlflow_client import entries_from_mlflow

        entries = entries_from_mlflow(mlflow, experiment)
    else:
        entries = [entry for board in stored_leaderboards(Store(store or "runs")).values() for entry in board]
    known = sorted({entry.study for entry in entries})
    for name in studies or ():
        if name not in known:
            raise ConfigurationError(f"no finished study {name!r}{did_you_mean(name, known) if known else ''}")
    board = Leaderboard(entry for entry in entries if not studies or entry.study in studies)
    if format is Format.table:
        print_table(board, _console())
    else:
        texts = {Format.md: markdown, Format.csv: Leaderboard.to_csv, Format.json: Leaderboard.to_json}
        sys.stdout.write(texts[format](board))
    if picture is not None:
        from pipelines.figure import draw

        if not board.groups:
            raise ConfigurationError("there are no rows to draw: run a study first")
        draw(board, picture)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A model's folder, or its label on a leaderboard of the store.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of corpus.* and evaluation.*.")
    ] = None,
    store: StorePath = None,
    device: Device = "cpu",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a trained model, a released checkpoint too.

    Prints BrierLM with its error, under the protocol the model was trained and scored with or another.
    """
    import json

    from pipelines.models import find_model
    from pipelines.numbers import with_error
    from pipelines.scoring import score_model
    from pipelines.store import Store

    _single_threaded()
    where = Store(store or "runs")
    found = replace(find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    result = score_model(found, where, overrides or (), device)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    console = _console()
    _say(console, f"BrierLM  {with_error(result.brierlm, result.brierlm_se)}")
    for n, value, error in zip(result.protocol.ngram_lengths, result.brier, result.brier_se, strict=True):
        _say(console, f"Brier-{n}  {with_error(100 * value, 100 * error)}")
    _say(
        console,
        f"times 100, ± one standard error over {result.error_unit}s; {result.num_positions:,} positions in "
        f"{result.num_documents:,} documents, {result.num_samples} samples at each; protocol {result.protocol_hash}; "
        f"{result.wall_time_s:.0f} s",
    )


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="An autoencoder's or CALM model's folder, or its label.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of corpus.* and evaluation.split.")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Most tokens to read.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample and the noise.")] = 0,
    store: StorePath = None,
    device: Device = "cpu",
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Probe an autoencoder: collapsed dimensions, accuracy against noise in the latent and against bits of it."""
    import json

    from pipelines.models import find_model
    from pipelines.probing import print_probes, probe_model
    from pipelines.store import Store

    _single_threaded()
    where = Store(store or "runs")
    probes = probe_model(find_model(model, where), where, overrides or (), seed, tokens, device)
    if as_json:
        print(json.dumps(probes.to_dict(), indent=2))
    else:
        print_probes(probes, _console())
    if picture is not None:
        from pipelines.probe_figure import draw_probes

        draw_probes(probes, picture)


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="A model's folder, or its label on a leaderboard of the store.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Text to continue; repeated, a batch. Token ids, if there is no tokenizer."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Most new tokens.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", help="Above 0, at most 1.")] = 1.0,
    method: Annotated[Method, typer.Option("--method", help="Of temperatures below 1.")] = Method.exact,
    candidates: Annotated[int, typer.Option("--candidates", help="N of the method batch.")] = 200,
    max_draws: Annotated[int, typer.Option("--max-draws", help="Samples of one chunk before a fallback.")] = 4096,
    seed: Annotated[int, typer.Option("--seed", help="Of the samples.")] = 0,
    store: StorePath = None,
    device: Device = "cpu",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
) -> None:
    """Continue prompts with a trained model, a released checkpoint too. What it took is said on stderr."""
    from calm_bench.overrides import ConfigurationError
    from calm_bench.sampling.temperature import Decoding
    from pipelines.models import find_model
    from pipelines.store import Store
    from pipelines.writing import continue_texts

    _single_threaded()
    try:
        decoding = Decoding(temperature, method.value, candidates, max_draws)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    found = replace(find_model(model, Store(store or "runs")), tokenizer=tokenizer, autoencoder=autoencoder)
    continue_texts(found, prompt or [""], tokens, seed, decoding, device, write, _say_on_stderr)


@app.command()
def studies(
    show: Annotated[str | None, typer.Option("--show", help="Print this study's complete configuration.")] = None,
) -> None:
    """List the studies that come with the package."""
    from pipelines.catalogue import resolve_study, shipped_studies

    if show is not None:
        from pipelines.study import resolved_yaml

        sys.stdout.write(resolved_yaml(resolve_study(show)))
        return
    found = shipped_studies()
    width = max((len(study.name) for study in found), default=0)
    for study in found:
        _say(_console(), f"{study.name:{width}}  {' '.join(study.description.split())}")


@app.command()
def doctor(store: StorePath = None) -> None:
    """Check that this machine can run studies; says what to change where it cannot."""
    from pipelines.doctor import examine

    console = _console()
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    failed = False
    for finding in examine(store or Path("runs")):
        console.print(f"[{styles[finding.level]}]{finding.level:8}[/] ", end="")
        _say(console, f"{finding.topic}: {finding.text}")
        failed = failed or finding.level == "error"
    if failed:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        from calm_bench import __version__

        print(__version__)
        raise typer.Exit
    if debug:
        os.environ[_DEBUG] = "1"


_DEBUG = "CALM_BENCH_DEBUG"


def main() -> None:
    """Run the command; an error is one message on stderr.

    Exit codes: 0 done; 1 something failed while it ran; 2 the command or a configuration cannot be used; 130
    interrupted.
    """
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _leave_at_once()
        raise
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        sys.exit(_complain(*_told(error)))


def _leave_at_once() -> NoReturn:
    """End after an impatient Ctrl-C: a thread amid a matrix product would abort the interpreter's orderly exit."""
    _complain("interrupted; what the last checkpoints hold is kept", INTERRUPTED)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _told(error: Exception) -> tuple[str, int]:
    """The message and the exit code of an error; what nobody foresaw says where to look."""
    # By name: importing all the modules that define these errors would take longer than most commands.
    name, text = type(error).__name__, str(error)
    if name in _USAGE_ERRORS:
        return text, 2
    if name == "StudyInterrupted":
        return text, INTERRUPTED
    if name in _RUN_ERRORS:
        return text, 1
    return f"{name}: {text} (calm-bench --debug {' '.join(sys.argv[1:])} shows where)", 1


_USAGE_ERRORS = {"ConfigurationError", "CorpusError", "TokenizerError", "TokensError", "UnknownName", "EvaluationError"}
_RUN_ERRORS = {"DamagedShard", "ExecutorError", "LeaderboardError", "StageError", "TrackingError", "WeightsError"}


def _complain(message: str, code: int) -> int:
    print(f"calm-bench: {message}", file=sys.stderr)
    return code


def _study(name: str, overrides: list[str] | None, store: Path | None, local: bool = False) -> Study:
    from pipelines.catalogue import resolve_study

    settings = list(overrides or ())
    if "=" in name and not Path(name).exists():
        # The study may be left out: calm-bench run corpus.source=text.jsonl
        settings.insert(0, name)
        name = DEFAULT_STUDY
    resolved = resolve_study(name, settings)
    execution = resolved.execution
    changes: dict[str, str] = {}
    if store is not None:
        changes["store"] = str(store)
    if local:
        changes["backend"] = "local"
    return resolved.model_copy(update={"execution": execution.model_copy(update=changes)})


def _console() -> Console:
    from rich.console import Console

    return Console()


def _say(console: Console, text: str, style: str = "") -> None:
    """Print text that is not markup, unbroken, so that paths can be copied."""
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)


def _say_on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _single_threaded() -> None:
    """As the stages do it, so that equal work gives equal numbers."""
    import torch

    torch.set_num_threads(1)
