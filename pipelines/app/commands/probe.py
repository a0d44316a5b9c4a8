"""Probe an autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

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
    single_threaded,
)


def probe(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An autoencoder's or CALM model's folder, or its label.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of corpus.* and evaluation.split.")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Most tokens to read.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample and the noise.")] = 0,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Probe an autoencoder: collapsed dimensions, accuracy against noise in the latent and against bits of it."""
    from pipelines.scoring.models import find_model
    from pipelines.scoring.probing import print_probes, probe_model
    from pipelines.store.opening import open_store

    if picture is not None:
        check_picture(picture)
    single_threaded()
    where = open_store(store)
    found = replace(find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    probes = probe_model(found, where, overrides or (), seed, tokens, device)
    if as_json:
        print_json(probes.to_dict())
    else:
        print_probes(probes, console())
    if picture is not None:
        from pipelines.scoring.probe_figure import draw_probes

        draw_probes(probes, picture)
