"""Score a trained model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from pipelines.commands.options import (
    AsJson,
    AutoencoderFolder,
    Device,
    StorePath,
    TokenizerName,
    console,
    say,
    single_threaded,
)


def evaluate(
    model: Annotated[str, typer.Argument(help="A model's folder, or its label on a leaderboard of the store.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of corpus.* and evaluation.*.")
    ] = None,
    store: StorePath = None,
    device: Device = "cpu",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model, a released checkpoint too.

    Prints BrierLM with its error, under the protocol the model was trained and scored with or another.
    """
    from pipelines.models import find_model
    from pipelines.numbers import with_error
    from pipelines.scoring import score_model
    from pipelines.store import Store

    single_threaded()
    where = Store(store or "runs")
    found = replace(find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    result = score_model(found, where, overrides or (), device)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    screen = console()
    say(screen, f"BrierLM  {with_error(result.brierlm, result.brierlm_se)}")
    for n, value, error in zip(result.protocol.ngram_lengths, result.brier, result.brier_se, strict=True):
        say(screen, f"Brier-{n}  {with_error(100 * value, 100 * error)}")
    say(
        screen,
        f"times 100, ± one standard error over {result.error_unit}s; {result.num_positions:,} positions in "
        f"{result.num_documents:,} documents, {result.num_samples} samples at each; protocol {result.protocol_hash}; "
        f"{result.wall_time_s:.0f} s",
    )
