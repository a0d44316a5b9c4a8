"""Score a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.app.commands.options import (
    MODEL_HELP,
    AsJson,
    AutoencoderFolder,
    Device,
    StorePath,
    TokenizerName,
    console,
    print_json,
    say,
    say_on_stderr,
    single_threaded,
    windows_done,
)

if TYPE_CHECKING:
    from pipelines.scoring.models import TrainedModel
    from pipelines.store.store import Store


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"{MODEL_HELP} A folder may hold a model of transformers, too; or module:Class, with --trust-code.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            help="Of lm-eval, by comma or one by one: names, task files, TASK@FOLDER for data in a folder; or offline.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents of each task.")] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", help="What stands in for a chunk model's likelihood (default: the best).")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Draws of each chunk for a task's scores.")] = 64,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", min=1, help="Tokens read, prompt and answer (default: 1024)."),
    ] = None,
    alignment: Annotated[
        str, typer.Option("--alignment", help="Where a task's chunks begin: at the continuation, or at the start.")
    ] = "continuation",
    protocols: Annotated[
        str, typer.Option("--protocols", help="Of BrierLM: matched, paper, words, bytes; or none.")
    ] = ("matched,paper"),
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows", metavar="FILE", help="Add the scores to this file of rows, for leaderboard and report --merge."
        ),
    ] = None,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Write it into MLflow, with texts.")] = True,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="MODEL is a sampler of your own, module:Class: import and run its code."),
    ] = False,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model, a released checkpoint, a model of transformers, or anything that samples.

    Prints BrierLM under both protocols and the tasks, each with its errors, sample counts and protocol.
    """
    from calm_bench.atomic import refuse_unwritable, write_bytes
    from pipelines.scoring.eval_rows import add_rows
    from pipelines.scoring.evaluating import EvalRequest, evaluate_model
    from pipelines.scoring.evaluation_report import print_report
    from pipelines.scoring.models import open_code
    from pipelines.store.opening import open_store
    from pipelines.tracking.evaluation import track_evaluation

    wanted = EvalRequest.of(
        protocols, ",".join(tasks or ()), limit, scorer, samples, max_length, alignment, track, rows is not None
    )
    single_threaded()
    where = open_store(store)
    if trust_code:
        found = open_code(model, tokenizer)
    else:
        found = replace(_find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    if rows is not None:
        # A file that holds something else, or cannot be written, is told of before minutes are spent.
        add_rows(rows, ())
        refuse_unwritable(rows)
    with windows_done() as progress:
        report = evaluate_model(model, found, where, overrides or (), device, wanted, progress)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report, console())
    if rows is not None:
        write_bytes(rows, add_rows(rows, report.entries).to_json().encode())
        if not as_json:
            say(console(), f"Rows    {rows}", style="dim")
    if track:
        parameters = {"model": model, "overrides": " ".join(overrides or ()), **wanted.parameters}
        address = track_evaluation(report, found.folder, parameters, where.root, say_on_stderr)
        if address is not None and not as_json:
            say(console(), f"MLflow  {address}", style="dim")


def _find_model(name: str, store: Store) -> TrainedModel:
    """As :func:`pipelines.scoring.models.find_model`; where the name may be that of code, the error says how to run it.

    Raises:
        ConfigurationError: there is no such model.
    """
    from calm_bench.overrides import ConfigurationError
    from evals.adapters.named_sampler import is_code_name
    from pipelines.scoring.models import find_model

    try:
        return find_model(name, store)
    except ConfigurationError as error:
        if not is_code_name(name):
            raise
        raise ConfigurationError(
            f"{error}. If {name} is a sampler of yours, add --trust-code: its code is imported and run"
        ) from error
