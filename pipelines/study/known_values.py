"""Values that open settings are known to take: names that ship or that an installed distribution registered.

An open setting takes other values too (a path, a name of a hub, a metric of a kind from elsewhere), so an editor
completes these and accepts the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from calm_bench.config import Benchmarks, Corpus, ExtraStage, LanguageModel, Tokens
from calm_bench.corpora.source import CORPORA, NEEDS_ARGUMENT
from calm_bench.family_registry import FAMILIES
from pipelines.study.search_metrics import IN_EVERY_TRIAL
from pipelines.study.search_settings import Constraint, Objective
from pipelines.study.stage_kind import STAGE_KINDS


def known_values() -> Mapping[tuple[type[BaseModel], str], tuple[str, ...]]:
    """Known values by the model and the name of an open setting. Imports no kind of stages from elsewhere."""
    # The registry of scorers stands beside their mathematics, which imports torch.
    from evals.scorers import SCORERS

    always = [name for kind in IN_EVERY_TRIAL for name in STAGE_KINDS.get(kind).search_metrics]
    every = [name for kind in STAGE_KINDS.built_in for name in STAGE_KINDS.get(kind).search_metrics]
    extra = [name for name in STAGE_KINDS.names() if name not in STAGE_KINDS.built_in]
    return {
        (Corpus, "source"): tuple(name for name in CORPORA.names() if name not in NEEDS_ARGUMENT),
        (Tokens, "tokenizer"): ("bytes", "bpe"),
        (LanguageModel, "kind"): tuple(FAMILIES.names()),
        (Benchmarks, "scorer"): tuple(SCORERS.names()),
        (Objective, "metric"): tuple(sorted(always)),
        (Constraint, "metric"): tuple(sorted(every)),
        (ExtraStage, "kind"): tuple(extra),
    }
