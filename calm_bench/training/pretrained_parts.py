"""Parts that were trained elsewhere: an autoencoder that is taken as it is, a language model to go on training."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.errors import UsageError
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.opening import open_autoencoder, open_network
from calm_bench.tensor_files import listed

INSIDE = "autoencoder."
"""Prefix of the autoencoder's tensors in a language model around it."""


class UnfitPart(UsageError, ValueError):
    """A trained part is not what the experiment around it describes; the message says what differs."""


def pretrained_autoencoder(folder: str | Path, chunk_size: int, vocab_size: int) -> Autoencoder:
    """The autoencoder of ``folder``, on the CPU and in evaluation mode: its own, or the one inside a CALM.

    Raises:
        UnfitPart: it is of another K or vocabulary.
        WeightsError: the folder cannot be read.
        ConfigurationError: it holds a model without an autoencoder.
    """
    found = open_autoencoder(Path(folder), "cpu")
    if found.chunk_size != chunk_size:
        raise UnfitPart(
            f"the autoencoder of {folder} packs {found.chunk_size} tokens, and model.chunk_size is {chunk_size}: set "
            f"model.chunk_size={found.chunk_size}"
        )
    if found.vocab_size != vocab_size:
        raise UnfitPart(
            f"the autoencoder of {folder} has a vocabulary of {found.vocab_size:,} tokens, and the text's tokenizer "
            f"one of {vocab_size:,}: set tokens.tokenizer to the one that it was trained with"
        )
    return found


def start_from(model: ChunkLanguageModel, folder: str | Path) -> None:
    """Give ``model`` the weights of the language model in ``folder``, a folder of this project or a released one.

    Raises:
        UnfitPart: tensors are missing or of other shapes, or it was trained on another autoencoder than ``model`` has.
        WeightsError: the folder cannot be read, or names a custom class that is not trusted.
    """
    # A released checkpoint may lie apart from its autoencoder, which the model has by then.
    beside = deepcopy(model.autoencoder) if isinstance(model, Calm) else None
    weights, own = open_network(Path(folder), "cpu", beside).state_dict(), model.state_dict()
    differing = [
        f"{name} is {_shape(weights.get(name))}, expected {_shape(own.get(name))}"
        for name in sorted(weights.keys() | own.keys())
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    if differing:
        raise UnfitPart(f"the model of {folder} does not fit the section model: {listed(differing)}")
    inner = [name for name in own if name.startswith(INSIDE)]
    if not all(torch.equal(weights[name], own[name].cpu()) for name in inner):
        raise UnfitPart(
            f"the model of {folder} was trained on another autoencoder, whose latents mean something else: set "
            f"autoencoder.pretrained.folder={folder} too"
        )
    model.load_state_dict(weights)


def is_built_on(folder: str | Path, autoencoder: str | Path) -> bool:
    """Whether the model in ``folder`` was trained on the autoencoder of the folder ``autoencoder``: it has the same
    weights inside, or none of its own. Of a model without a place for one it is so too.

    Raises:
        WeightsError: a folder cannot be read, or names a custom class that is not trusted.
        ConfigurationError: ``autoencoder`` holds a model without one.
    """
    wanted = open_autoencoder(Path(autoencoder), "cpu")
    model = open_network(Path(folder), "cpu", deepcopy(wanted))
    if not isinstance(model, Calm):
        return True
    found, own = model.autoencoder.state_dict(), wanted.state_dict()
    return found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else " x ".join(map(str, tensor.shape)) or "a number"
