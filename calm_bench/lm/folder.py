"""A language model's folder: weights, description and tokenizer, nothing needed from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.families.base import family_of
from calm_bench.families.custom import imported
from calm_bench.family_registry import FAMILIES
from calm_bench.head_config import CustomHead
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.own_contract import BrokenContract
from calm_bench.seeding import derive
from calm_bench.trusted_code import TRUSTED_HEADS, trust_code, trusted_by_environment
from calm_bench.weights import WeightsError, load_weights, read_description


def build_language_model(
    config: LanguageModelConfig,
    vocab_size: int,
    autoencoder: Autoencoder | None,
    seed: int,
    document_end: int | None = None,
) -> ChunkLanguageModel:
    """An untrained model whose initial weights depend on ``seed`` alone, not on what ran before.

    Args:
        document_end: the token that ends a document, for a model whose attention stays inside them.

    A head or a family from elsewhere that ``config`` names is imported, and trusted in this process from then on.

    Raises:
        ValueError: a model of a family that needs an autoencoder, without one, or one of ``model.document_masking``
            without ``document_end``.
        BrokenContract: its network is no :class:`ChunkLanguageModel`.
    """
    named = _code_of(config)
    if named is not None:
        trust_code(named)
    network = imported(family_of(config).network_of(config))
    if not (isinstance(network, type) and issubclass(network, ChunkLanguageModel)):
        raise BrokenContract(f"{network!r} is no class derived from calm_bench.lm.ChunkLanguageModel")
    if config.needs_autoencoder and autoencoder is None:
        raise ValueError(f"a {config.kind} model needs an autoencoder")
    if config.document_masking and document_end is None:
        raise ValueError("a model of model.document_masking needs to know which token ends a document")
    # Each network chooses its own arguments: the protocol of its family says which.
    build: Callable[..., ChunkLanguageModel] = network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "language_model"))
        model = build(config, autoencoder if config.needs_autoencoder else vocab_size)
    if config.document_masking:
        model.document_end = document_end
    return model


def load_language_model(
    folder: str | Path, device: str = "cpu", trusted_heads: Collection[str] = ()
) -> ChunkLanguageModel:
    """Read a trained model, in evaluation mode.

    Args:
        trusted_heads: ``module:Class`` names, of heads or families, that the folder may have imported, besides those
            listed in the environment variable ``CALM_BENCH_TRUSTED_HEADS``. A folder from elsewhere must not choose
            what code runs.

    Raises:
        WeightsError: the folder holds something else, names a custom head or family that is not trusted, or keys
            or shapes do not match.
    """
    description = read_description(folder, *(f"calm_bench_{kind}" for kind in FAMILIES.names()))
    model = from_description(description, trusted_heads)
    load_weights(model, folder)
    return model.to(device).eval()


def from_description(description: dict[str, Any], trusted_heads: Collection[str] = ()) -> ChunkLanguageModel:
    """An untrained model of the described sizes, with its autoencoder if it has one.

    Raises:
        WeightsError: its head or its family is a custom one that is not trusted.
    """
    # The budget is no property of the model, but the configuration cannot be built without one.
    config = LanguageModelConfig.model_validate({**description["model"], "training": {"num_steps": 1}})
    target = _code_of(config)
    if target is not None and target not in {*trusted_heads, *trusted_by_environment()}:
        what = "head is the class" if config.family.uses("head") else "family is"
        raise WeightsError(
            f"the model's {what} {target!r}, which loading would import and run: "
            f"if you trust it, set {TRUSTED_HEADS}={target}"
        )
    inner = description.get("autoencoder")
    autoencoder = Autoencoder.from_description(inner) if inner else None
    end = description.get("document_end")
    return build_language_model(config, description["vocab_size"], autoencoder, seed=0, document_end=end)


def runs_code_from_elsewhere(config: LanguageModelConfig) -> bool:
    """Whether a part of the model is a class that its configuration names."""
    return _code_of(config) is not None


def _code_of(config: LanguageModelConfig) -> str | None:
    """``module:NAME`` of what a configuration would have imported from elsewhere."""
    if config.family.uses("head") and isinstance(config.head, CustomHead):
        return config.head.target
    return config.custom.target if config.family.uses("custom") else None
