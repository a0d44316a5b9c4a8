"""How much has to be scored for a wanted error?"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

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
from pipelines.common.numbers import short
from pipelines.common.tables import plain_table


def sample_size(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    error: Annotated[float, typer.Option("--error", min=0.0, help="The wanted standard error of BrierLM, in points.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*, for the pilot.")
    ] = None,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say how many documents and samples per position a standard error takes, from a pilot score of the model."""
    from calm_bench.overrides import ConfigurationError
    from evals.sample_size import sample_sizes
    from pipelines.scoring.models import find_model
    from pipelines.scoring.scoring import Scoring
    from pipelines.scoring.stored_sums import sums_of
    from pipelines.store.opening import open_store

    single_threaded()
    where = open_store(store)
    found = replace(find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    pilot = sums_of(Scoring(found, where, overrides or (), device), where)
    try:
        sizes = sample_sizes(pilot, error)
    except ValueError as problem:
        raise ConfigurationError(f"--error: {problem}") from None
    if as_json:
        print_json([size.to_dict() for size in sizes])
        return

    grid = plain_table()
    for heading in ("Samples", "Documents", "Positions", "Continuations", "Expected error"):
        grid.add_column(heading, justify="right")
    for size in sizes:
        counts = (size.num_samples, size.num_documents, size.num_positions, size.num_continuations)
        grid.add_row(*(f"{count:,}" for count in counts), short(size.standard_error))
    screen = console()
    screen.print(grid)
    say(
        screen,
        f"for a standard error of {error:g} in documents like those of the pilot ({len(pilot.sums.counts):,} "
        f"{pilot.error_unit}s, estimator {pilot.estimator}, protocol {pilot.protocol_hash})",
    )
