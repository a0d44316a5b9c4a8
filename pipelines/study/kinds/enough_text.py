"""What a training asks of its text: that there is enough, and where it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calm_bench.corpora import SPLITS
from pipelines.study.stage import Stage


def too_little_to_train_on(stage: Stage, section: str, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the training of ``stage`` in ``section`` would fail: a split, or a shard, is shorter than its sequences."""
    if (reason := _too_short_shards(stage, section)) is not None:
        return reason
    tokens = results.get("tokens", {}).get("tokens")
    if not isinstance(tokens, Mapping):
        return None
    length = stage.config[section]["training"]["sequence_length"]
    for split, way_out in (("train", "add text"), ("validation", "raise corpus.validation_fraction")):
        if tokens.get(split, length) < length:
            return (
                f"the {split} split has {tokens[split]:,} tokens, fewer than one sequence of {length:,}: lower "
                f"{section}.training.sequence_length, or {way_out}"
            )
    return None


def _too_short_shards(stage: Stage, section: str) -> str | None:
    training = stage.config[section]["training"]
    if training.get("shuffle_shards") is None:
        return None
    shard = stage.inputs["tokens"].config["shard_tokens"]
    if shard >= training["sequence_length"]:
        return None
    return (
        f"no sequence of {training['sequence_length']:,} tokens fits into a shard of {shard:,}, which "
        f"{section}.training.shuffle_shards asks for: raise tokens.shard_tokens"
    )


def shards_left_elsewhere(stage: Stage, section: str) -> dict[str, tuple[str, ...]]:
    """The text that the training of ``stage`` in ``section`` brings itself: that of which it holds a few shards."""
    training = stage.config[section].get("training", {})
    return {"tokens": ("train",)} if training.get("shuffle_shards") is not None else {}


def text_left_elsewhere(stage: Stage) -> dict[str, tuple[str, ...]]:
    """The text of a stage that reads some of it, whose files are brought when they are read."""
    return {name: SPLITS for name in ("corpus", "tokens") if name in stage.inputs}
