"""Two models on the same positions."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

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
    single_threaded,
)


def compare(
    first: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    second: Annotated[str, typer.Argument(metavar="MODEL", help="Another one, with the same tokenizer.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*.")
    ] = None,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say how far apart two models are, document by document, with a 95 % interval.

    Both are scored on the same positions, so what makes a document hard for both cancels out. A label of several seeds
    stands for their mean; NAME@SEED is one of them. What the store holds is not scored again.
    """
    from evals.sums import compare_seeds
    from pipelines.scoring.comparison_report import both_clipped, comparison_lines
    from pipelines.scoring.models import find_seeds
    from pipelines.scoring.scoring import Scoring
    from pipelines.scoring.stored_sums import sums_of
    from pipelines.store.opening import open_store

    single_threaded()
    where = open_store(store)
    parts: dict[str, Any] = {"tokenizer": tokenizer, "autoencoder": autoencoder}
    # Both names are known before the first model is scored.
    named = [find_seeds(name, where) for name in (first, second)]
    scored = [
        [sums_of(Scoring(replace(model, **parts), where, overrides or (), device), where) for model in models]
        for models in named
    ]
    sides = (scored[0], scored[1])
    found = compare_seeds(*sides)
    if as_json:
        told = {
            "first": first,
            "second": second,
            **asdict(found),
            "both_clipped": both_clipped(*sides),
            "seeds": [len(side) for side in sides],
            "protocol_hash": sides[0][0].protocol_hash,
        }
        print_json(told)
        return
    screen = console()
    for line in comparison_lines((first, second), sides, found):
        say(screen, line)
