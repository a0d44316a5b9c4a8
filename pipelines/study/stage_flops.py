"""The training FLOPs of one stage, from its description alone."""

from __future__ import annotations

from calm_bench.config import Tokens
from calm_bench.overrides import ConfigurationError
from pipelines.study.price import assumed_vocab_size
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import kind_or_none


def stage_vocab_size(stage: Stage) -> int | None:
    """The vocabulary of the tokens that ``stage`` reads, as :func:`assumed_vocab_size`; None where it is not known."""
    try:
        return assumed_vocab_size(Tokens.model_validate(stage.inputs["tokens"].settings["tokens"]))
    except (ConfigurationError, KeyError):
        return None


def stage_flops(stage: Stage) -> float:
    """Training FLOPs of all steps of a stage, from its description alone.

    0 for a kind that trains nothing or is not installed here, and where the vocabulary's size is not known yet.
    """
    kind = kind_or_none(stage.kind)
    vocab_size = stage_vocab_size(stage)
    return 0.0 if kind is None or vocab_size is None else kind.flops(stage, vocab_size)
