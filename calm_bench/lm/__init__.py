"""Language models: chunk by chunk (CALM) and token by token (the baseline), behind one interface."""

from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.lm.folder import load_language_model
from calm_bench.lm.token import TokenModel

__all__ = ["Calm", "ChunkLanguageModel", "TokenModel", "load_language_model"]
