"""The training FLOPs of one stage, from its description alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.study.stage import Stage


def stage_flops(stage: Stage) -> float:
    """FLOPs of all steps of a training stage; 0 for other kinds, and where the vocabulary's size is not known yet."""
    from calm_bench.config import Tokens
    from calm_bench.overrides import ConfigurationError
    from pipelines.study.kinds.runners import autoencoder_experiment, language_model_experiment
    from pipelines.study.price import assumed_vocab_size, price_of

    if stage.kind not in ("autoencoder", "language_model"):
        return 0.0
    try:
        vocab_size = assumed_vocab_size(Tokens.model_validate(stage.inputs["tokens"].settings["tokens"]))
    except (ConfigurationError, KeyError):
        return 0.0
    is_model = stage.kind == "language_model"
    price = price_of(language_model_experiment(stage) if is_model else autoencoder_experiment(stage), vocab_size)
    training = price.model if is_model else price.autoencoder
    return 0.0 if training is None else training.flops.total
