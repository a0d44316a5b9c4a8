"""Continue prompts with a trained model."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from pipelines.app.commands.options import (
    MODEL_HELP,
    AsJson,
    AutoencoderFolder,
    Device,
    StorePath,
    TokenizerName,
    end_if_unseen,
    print_json,
    say_on_stderr,
    single_threaded,
)
from pipelines.common.sanitize import without_controls


class Method(StrEnum):
    exact = "exact"
    batch = "batch"
    auto = "auto"


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Text to continue; repeated, a batch. Token ids, if there is no tokenizer."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Most new tokens.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", help="Above 0, at most 1.")] = 1.0,
    method: Annotated[
        Method, typer.Option("--method", help="Of temperatures below 1; auto: exact where N draws do, otherwise batch.")
    ] = Method.auto,
    candidates: Annotated[int, typer.Option("--candidates", help="N of the methods batch and auto.")] = 200,
    max_draws: Annotated[int, typer.Option("--max-draws", help="Samples of one chunk before a fallback.")] = 4096,
    seed: Annotated[int, typer.Option("--seed", help="Of the samples.")] = 0,
    store: StorePath = None,
    device: Device = "auto",
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Continue prompts with a trained model, a released checkpoint too. What it took is said on stderr."""
    from calm_bench.overrides import ConfigurationError
    from calm_bench.sampling.temperature import Decoding
    from pipelines.scoring.generation import continue_texts
    from pipelines.scoring.models import find_model
    from pipelines.store.opening import open_store

    single_threaded()
    try:
        decoding = Decoding(temperature, method.value, candidates, max_draws)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None

    # A model may write anything; what reads a pipe gets it as it is.
    is_seen = sys.stdout.isatty()

    def write(text: str) -> None:
        sys.stdout.write(without_controls(text) if is_seen else text)
        sys.stdout.flush()
        end_if_unseen(sys.stdout)

    found = replace(find_model(model, open_store(store)), tokenizer=tokenizer, autoencoder=autoencoder)
    prompts, show = prompt or [""], None if as_json else write
    texts = continue_texts(found, prompts, tokens, seed, decoding, device, show, say_on_stderr)
    if as_json:
        print_json([{"prompt": given, "text": text} for given, text in zip(prompts, texts, strict=True)])
