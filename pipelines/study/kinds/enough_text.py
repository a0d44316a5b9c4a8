"""Whether there is text enough for a training, known as soon as there are tokens and before other inputs are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.study.stage import Stage


def too_little_to_train_on(stage: Stage, section: str, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the training of ``stage`` in ``section`` would fail: a split is shorter than one of its sequences."""
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
