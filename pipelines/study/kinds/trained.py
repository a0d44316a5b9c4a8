"""The language model that a later stage of the same trial reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.study.stage import Stage

if TYPE_CHECKING:
    from calm_bench.lm.base import ChunkLanguageModel


def load_trained(stage: Stage, folder: Path, device: str) -> ChunkLanguageModel:
    """The model in ``folder``, which the stage ``language_model`` that ``stage`` reads has written.

    The study's own configuration names a custom head or family, so the folder it trained may have it imported.

    Raises:
        WeightsError: the folder cannot be read.
    """
    from calm_bench.lm import load_language_model

    model = stage.inputs["language_model"].config["model"]
    named = [model.get(section, {}).get("target") for section in ("head", "custom")]
    return load_language_model(folder, device, [target for target in named if target])
