"""Language models of every family behind one interface: CALM, the token baseline, and others."""

from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.lm.exact import ExactModel
from calm_bench.lm.folder import load_language_model
from calm_bench.lm.token import TokenModel

__all__ = ["Calm", "ChunkLanguageModel", "ExactModel", "TokenModel", "load_language_model"]
