"""Hand a trained model on: into a folder, or to a hub."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.app.commands.options import (
    MODEL_HELP,
    AsJson,
    AutoencoderFolder,
    StorePath,
    TokenizerName,
    console,
    print_json,
    say,
    say_on_stderr,
)

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.scoring.exporting import Exported


class Format(StrEnum):
    hf = "hf"
    released = "released"


class Weights(StrEnum):
    safetensors = "safetensors"
    bin = "bin"


FORMAT_HELP = "hf: for transformers and cb.load_model; released: as the authors' checkpoints are."
FormatOption = Annotated[Format, typer.Option("--format", help=FORMAT_HELP)]
WeightsOption = Annotated[
    Weights, typer.Option("--weights", help="Of --format released: bin is what the authors' code writes itself.")
]


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="A new folder (default: MODEL-hf).")
    ] = None,
    format: FormatOption = Format.hf,
    weights: WeightsOption = Weights.safetensors,
    store: StorePath = None,
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write a model, its tokenizer and its card into a folder that transformers or the authors' code reads."""
    # Not the model's name alone: a folder of that name would be what the name means from then on.
    folder = output or Path(f"{_name(model)}-{format.value}")
    written = _export(model, folder, format, weights, store, tokenizer, autoencoder)
    if as_json:
        print_json({"folder": str(folder), **_listed(written)})
        return
    screen = console()
    _list(screen, written)
    say(screen, str(folder))


def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: OWNER/NAME.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; else it is private.")] = False,
    format: FormatOption = Format.hf,
    weights: WeightsOption = Weights.safetensors,
    store: StorePath = None,
    tokenizer: TokenizerName = None,
    autoencoder: AutoencoderFolder = None,
    as_json: AsJson = False,
) -> None:
    """Send a model, its tokenizer and its card to a Hugging Face hub.

    The token is that of `hf auth login` or of HF_TOKEN; HF_ENDPOINT names another hub. A repository that is there keeps
    its visibility, and files of the same names are replaced.
    """
    from pipelines.scoring.hub_upload import check_repo_name, upload
    from pipelines.scoring.model_card import CARD_FILE

    check_repo_name(repo)
    screen = console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        written = _export(model, folder, format, weights, store, tokenizer, autoencoder, portable=True)
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
        if not as_json:
            _list(screen, written)
        commit = None if dry_run else upload(folder, repo, public, f"{model} of calm-bench")
    if as_json:
        print_json({"repository": repo, "commit": commit, "card": card, **_listed(written)})
    elif commit is None:
        say(screen, card)
        say(screen, f"nothing was sent to {repo} (--dry-run)")
    else:
        say(screen, commit)


def _export(
    model: str,
    folder: Path,
    format: Format,
    weights: Weights,
    store: str | None,
    tokenizer: str | None,
    autoencoder: Path | None,
    portable: bool = False,
) -> Exported:
    from calm_bench.overrides import ConfigurationError
    from pipelines.scoring.exporting import export_model
    from pipelines.scoring.models import find_model
    from pipelines.store.opening import open_store

    if weights is not Weights.safetensors and format is not Format.released:
        raise ConfigurationError(
            f"--weights {weights.value} is of --format released: add that, or leave --weights out (--format hf has "
            "safetensors)"
        )
    where = open_store(store)
    found = replace(find_model(model, where), tokenizer=tokenizer, autoencoder=autoencoder)
    return export_model(_name(model), found, where, folder, format.value, weights.value, portable)


def _listed(written: Exported) -> dict[str, Any]:
    """Files and notes, for programs."""
    files = [{"name": name, "bytes": size} for name, size in written.files]
    return {"files": files, "notes": list(written.notes)}


def _list(screen: Console, written: Exported) -> None:
    width = max(len(name) for name, _ in written.files)
    for name, size in written.files:
        say(screen, f"{name:{width}}  {size:,} bytes", style="dim")
    for note in written.notes:
        say_on_stderr(f"note: {note}")


def _name(model: str) -> str:
    """What the model is called without what stands before it: its label, or the last part of its path."""
    return model.rstrip("/").rpartition("/")[2] or "model"
