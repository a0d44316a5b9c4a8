"""A language model's folder: weights, description and tokenizer, nothing needed from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.head_config import CustomHead
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.lm.token import TokenModel
from calm_bench.seeding import derive
from calm_bench.weights import WeightsError, load_weights, read_description

TRUSTED_HEADS = "CALM_BENCH_TRUSTED_HEADS"


def build_language_model(
    config: LanguageModelConfig, vocab_size: int, autoencoder: Autoencoder | None, seed: int
) -> ChunkLanguageModel:
    """An untrained model whose initial weights depend on ``seed`` alone, not on what ran before.

    Raises:
        ValueError: a chunk model without an autoencoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "language_model"))
        if config.kind == "token":
            return TokenModel(config, vocab_size)
        if autoencoder is None:
            raise ValueError("a chunk model needs an autoencoder")
        return Calm(config, autoencoder)


def load_language_model(folder: Path, device: str = "cpu", trusted_heads: Collection[str] = ()) -> ChunkLanguageModel:
    """Read a trained model, in evaluation mode.

    Args:
        trusted_heads: ``module:Class`` names that the folder may have imported, besides those listed in the
            environment variable ``CALM_BENCH_TRUSTED_HEADS``. A folder from elsewhere must not choose what code runs.

    Raises:
        WeightsError: the folder holds something else, names a custom head that is not trusted, or keys or shapes do
            not match.
    """
    description = read_description(folder, "calm_bench_calm", "calm_bench_token")
    model = from_description(description, trusted_heads)
    load_weights(model, folder)
    return model.to(device).eval()


def from_description(description: dict[str, Any], trusted_heads: Collection[str] = ()) -> ChunkLanguageModel:
    """An untrained model of the described sizes, with its autoencoder if it has one.

    Raises:
        WeightsError: its head is a custom one that is not trusted.
    """
    # The budget is no property of the model, but the configuration cannot be built without one.
    config = LanguageModelConfig.model_validate({**description["model"], "training": {"num_steps": 1}})
    if config.kind == "calm" and isinstance(config.head, CustomHead):
        trusted = {*trusted_heads, *os.environ.get(TRUSTED_HEADS, "").split(",")}
        if config.head.target not in trusted:
            raise WeightsError(
                f"the model's head is the class {config.head.target!r}, which loading would import and run: "
                f"if you trust it, set {TRUSTED_HEADS}={config.head.target}"
            )
    inner = description.get("autoencoder")
    autoencoder = Autoencoder.from_description(inner) if inner else None
    return build_language_model(config, description["vocab_size"], autoencoder, seed=0)
