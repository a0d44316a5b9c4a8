"""One model's score against the length of its context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.app.commands.options import (
    AsJson,
    AutoencoderFolder,
    Device,
    StorePath,
    TokenizerName,
    check_picture,
    console,
    print_json,
    say,
    single_threaded,
)
from pipelines.common.tables import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evals.context_sweep import ContextSweep

SHORTEST = 16
WIDE = 100
"""Terminal columns from which the components have room, too."""


def context_sweep(
    models: Annotated[str, typer.Argument(metavar="MODEL[,MODEL...]", help="Folders or labels, by comma.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.*.")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option("--lengths", help="Tokens of context, by comma (default: powers of two up to the protocol's)."),
    ] = None,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score the same targets with more and more context before them."""
    from evals.context_sweep import sweep_context
    from pipelines.scoring.context_figure import draw_sweeps
    from pipelines.scoring.models import find_model, split_names
    from pipelines.scoring.scoring import Scoring
    from pipelines.store.opening import open_store

    if picture is not None:
        check_picture(picture)
    single_threaded()
    where = open_store(store)
    sweeps: dict[str, ContextSweep] = {}
    # All names are known before the first model is scored.
    named = {name: find_model(name, where) for name in split_names(models, where)}
    for name, model in named.items():
        found = replace(model, tokenizer=tokenizer, autoencoder=autoencoder)
        scoring = Scoring(found, where, overrides or (), device)
        protocol = scoring.protocol()
        wanted = _lengths(lengths, protocol.context_length, scoring.sampler.chunk_size)
        sweeps[name] = sweep_context(scoring.sampler, scoring.stream, protocol, wanted)
    if as_json:
        print_json({name: sweep.to_dict() for name, sweep in sweeps.items()})
    else:
        screen = console()
        for name, sweep in sweeps.items():
            screen.print(_table(name, sweep, screen.width))
            say(
                screen,
                f"times 100, ± one standard error over {sweep.error_unit}s; difference to the longest context, paired, "
                f"with its 95 % interval; {sweep.num_positions:,} targets in {sweep.num_documents:,} documents, "
                f"{sweep.num_samples} samples, estimator {sweep.estimator}; targets of protocol {sweep.protocol_hash}",
                style="dim",
            )
            screen.print()
    if picture is not None:
        draw_sweeps(sweeps, picture)


def _lengths(text: str | None, longest: int, chunk_size: int) -> list[int]:
    from calm_bench.overrides import ConfigurationError

    if text is None:
        length, found = max(SHORTEST, chunk_size), []
        while length < longest:
            found.append(length)
            length *= 2
        return [*found, longest]
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--lengths takes numbers of tokens by comma, such as 32,128, not {text!r}") from None


def _table(name: str, sweep: ContextSweep, width: int) -> RenderableType:

    from pipelines.common.numbers import clipped_with_error, interval, printable, with_error

    grid = plain_table(printable(name))
    lengths = sweep.protocol.ngram_lengths if width >= WIDE else ()
    for heading in ("Context", "BrierLM", "Difference", "95 %", *(f"Brier-{n}" for n in lengths)):
        grid.add_column(heading, justify="right", no_wrap=True)
    for point in sweep.points:
        low, high = point.difference_interval
        is_longest = point is sweep.points[-1]
        parts = zip(lengths, point.brier, point.brier_se, strict=False)
        grid.add_row(
            f"{point.context_length:,}",
            clipped_with_error(point.brierlm, point.brierlm_se),
            "" if is_longest else with_error(point.difference, point.difference_se),
            "" if is_longest else interval(low, high),
            *(with_error(100 * value, 100 * error) for _, value, error in parts),
        )
    return grid
