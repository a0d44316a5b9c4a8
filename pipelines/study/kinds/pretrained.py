"""The folder that a stage begins from, whose content stands in its configuration and whose path in its settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.config import Tokens
from calm_bench.errors import CalmBenchError, UsageError
from calm_bench.fingerprint import folder_identity
from calm_bench.pretrained_config import folder_vocabulary
from pipelines.common.record_file import RecordError
from pipelines.study.stage import Stage
from pipelines.study.stage_flops import stage_vocab_size
from pipelines.study.stage_folder import StageRecord


class ChangedFolder(UsageError, ValueError):
    """A folder does not hold what a stage was described with."""

    input_explains = False


def pretrained_folder(stage: Stage, section: str) -> Path | None:
    """Where the trained part lies that the stage begins from; None where it begins from nothing.

    Raises:
        ChangedFolder: the folder is not here, or holds something else than when the study was read.
    """
    described = stage.config[section].get("pretrained")
    if described is None:
        return None
    folder = Path(stage.settings["pretrained"])
    if not folder.is_dir():
        raise ChangedFolder(f"{section}.pretrained.folder: {folder} is not on this machine")
    if folder_identity(folder) != described["folder"]:
        raise ChangedFolder(
            f"{section}.pretrained.folder: what {folder} holds has changed since the study was read: the same command "
            "goes on with what it holds now"
        )
    return folder


def other_vocabulary(stage: Stage, section: str, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the trained part that the stage begins from does not read the text's tokens; None where it does, or where
    that is not known yet.

    Args:
        results: of the stage's inputs, as far as they are there.
    """
    if "pretrained" not in stage.config[section]:
        return None
    folder = Path(stage.settings["pretrained"])
    found, read = results.get("tokens", {}).get("vocab_size") or _known_size(stage), folder_vocabulary(folder)
    if found is None or read is None or found == read:
        return None
    return (
        f"the {section} of {folder} has a vocabulary of {read:,} tokens, and the text's tokenizer one of {found:,}: "
        "set tokens.tokenizer to the one that it was trained with"
    )


def other_autoencoder(stage: Stage, finished: Mapping[str, Path]) -> str | None:
    """Why the CALM that the stage begins from does not fit its autoencoder; None where it does, or where that is not
    known.

    An autoencoder that is yet to be trained is another one, but where the model's folder is that of a stage which was
    trained on the very same.

    Args:
        finished: folders of the stage's inputs, as far as they are there.
    """
    source = stage.inputs.get("autoencoder")
    if "pretrained" not in stage.config["model"] or source is None:
        return None
    folder, content = Path(stage.settings["pretrained"]), stage.config["model"]["pretrained"]["folder"]
    if "pretrained" in source.config["autoencoder"]:
        beside = Path(source.settings["pretrained"])
        fits = _fits(folder, content, beside, source.config["autoencoder"]["pretrained"]["folder"])
    elif "autoencoder" in finished:
        fits = _fits(folder, content, finished["autoencoder"] / "model", source.identity)
    else:
        fits = _trained_on(folder) == source.identity
    if fits:
        return None
    return (
        f"the model of {folder} was trained on another autoencoder, whose latents mean something else: set "
        f"autoencoder.pretrained.folder={folder} too, or the folder of that autoencoder where it lies apart"
    )


def _trained_on(folder: Path) -> str | None:
    """Identity of the autoencoder of the model in ``folder``, where that is part of a finished stage."""
    try:
        source = StageRecord.load(folder.parent).inputs.get("autoencoder")
    except (OSError, RecordError):
        return None
    return None if source is None else source.identity


@lru_cache(maxsize=64)
def _fits(folder: Path, content: str, autoencoder: Path, its_content: str) -> bool:
    """Whether one is built on the other, each being what it is by its content; where that cannot be told, the training
    says what is wrong."""
    from calm_bench.training.pretrained_parts import is_built_on

    try:
        return is_built_on(folder, autoencoder)
    except (CalmBenchError, OSError):
        return True


def _known_size(stage: Stage) -> int | None:
    """Size of the vocabulary where the tokenizer is there before the tokens are."""
    tokens = Tokens.model_validate(stage.inputs["tokens"].settings["tokens"])
    is_here = tokens.tokenizer == "bytes" or (tokens.tokenizer != "bpe" and Path(tokens.tokenizer).is_dir())
    return stage_vocab_size(stage) if is_here else None
