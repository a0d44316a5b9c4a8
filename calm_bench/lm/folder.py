"""A language model's folder: weights, description and tokenizer, nothing needed from elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.lm.token import TokenModel
from calm_bench.seeding import derive
from calm_bench.weights import load_weights, read_description


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


def load_language_model(folder: Path, device: str = "cpu") -> ChunkLanguageModel:
    """Read a trained model, in evaluation mode.

    Raises:
        WeightsError: the folder holds something else, or keys or shapes do not match.
    """
    description = read_description(folder, "calm_bench_calm", "calm_bench_token")
    # The budget is no property of the model, but the configuration cannot be built without one.
    config = LanguageModelConfig.model_validate({**description["model"], "training": {"num_steps": 1}})
    inner = description.get("autoencoder")
    autoencoder = Autoencoder.from_description(inner) if inner else None
    model = build_language_model(config, description["vocab_size"], autoencoder, seed=0)
    load_weights(model, folder)
    return model.to(device).eval()
