"""A trained model as a folder that others load: for transformers, or in the format of the released checkpoints."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.atomic import refuse_unwritable
from calm_bench.export import AUTOENCODER_FOLDER, Format, export_reference
from calm_bench.kept_folders import make_folder
from calm_bench.opening import open_network, open_tokenizer, tokenizer_setting
from calm_bench.overrides import ConfigurationError
from pipelines.scoring.model_card import CARD_FILE, ExportFormat, model_card
from pipelines.scoring.models import TrainedModel, is_transformers_model, rows_of_model
from pipelines.store.store import Store

if TYPE_CHECKING:
    from calm_bench.lm.base import ChunkLanguageModel
    from calm_bench.tokens import Tokenizer

TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    files: tuple[tuple[str, int], ...]
    """Path in the folder and bytes of each file."""
    notes: tuple[str, ...]
    """What is lost in the format."""


def export_model(
    name: str,
    model: TrainedModel,
    store: Store,
    folder: Path,
    format: ExportFormat = "hf",
    weights: Format = "safetensors",
    portable: bool = False,
) -> Exported:
    """Write ``model``, called ``name``, with its tokenizer and its card into ``folder``, which is new or empty.

    ``hf`` is what :mod:`calm_bench.hub` and ``cb.load_model`` read, with a tokenizer that ``AutoTokenizer`` reads;
    ``released`` is what the reference implementation reads.

    Args:
        weights: of ``released``: ``bin`` is what the reference itself writes.
        portable: leave the folder's own path out of ``released``, whose configuration names it.

    Raises:
        ConfigurationError: the folder holds something, or the model is one of transformers already.
        OSError: the folder cannot be made; names it.
        ExportError: the reference has no such model.
        WeightsError, TokenizerError: the model cannot be read.
    """
    from calm_bench.tokens.for_transformers import save_for_transformers

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is not empty: name a new folder with --output")
    refuse_unwritable(folder)
    if is_transformers_model(model.folder):
        raise ConfigurationError(f"{model.folder} holds a model of transformers already: share it as it is")
    network = open_network(model.folder, "cpu", model.autoencoder)
    setting = model.tokenizer or tokenizer_setting(model.folder)
    tokenizer = None if setting is None else open_tokenizer(setting)
    make_folder(folder.parent)
    # Under its name when it is whole, and not before.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        part, notes = Path(scratch) / "model", list[str]()
        if format == "hf":
            network.save(part)
            if tokenizer is not None:
                tokenizer.save(part / TOKENIZER_FOLDER)
        else:
            inner = Path(AUTOENCODER_FOLDER) if portable else folder.absolute() / AUTOENCODER_FOLDER
            notes += _write_released(network, tokenizer, part, weights, str(inner))
        if tokenizer is None:
            notes.append("there is no tokenizer: the model came without one, so texts are token ids")
        else:
            save_for_transformers(tokenizer, part)
        card = model_card(name, network, model.corpus, rows_of_model(model, store), format, notes)
        card.save(part / CARD_FILE)
        part.replace(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Exported(
        folder, tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files), tuple(notes)
    )


def _write_released(
    network: ChunkLanguageModel, tokenizer: Tokenizer | None, folder: Path, weights: Format, ae_path: str
) -> list[str]:
    """Write the model and, beside it, its autoencoder, at which ``ae_path`` is to point."""
    from calm_bench.lm.calm import Calm

    eos_id = None if tokenizer is None else tokenizer.eos_id
    notes = export_reference(network, folder, eos_id, format=weights, ae_path=ae_path)
    if isinstance(network, Calm):
        export_reference(network.autoencoder, folder / AUTOENCODER_FOLDER, eos_id, format=weights)
    return notes
