"""Scores of ``calm-bench eval`` as rows of a leaderboard: models of others beside our own.

A model that the store has a row of keeps that row's costs and names. Of another one stands there what can be known: a
network of this project's kinds has its size and its inference FLOPs in closed form, a sampler of one's own or a model
of transformers what its class declares (:data:`DECLARED`), and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.fingerprint import file_digest, identity
from calm_bench.flops import inference_flops
from calm_bench.model_code import model_code
from calm_bench.overrides import ConfigurationError
from calm_bench.source_digest import code_digest
from pipelines.common.corpus_name import corpus_name
from pipelines.results.entry import OTHER, Entry
from pipelines.results.leaderboard import Leaderboard, read_board
from pipelines.results.merging import identities
from pipelines.scoring.models import WEIGHTS, TrainedModel, rows_of_model
from pipelines.study.kinds.evaluation import ROW_FIELDS

if TYPE_CHECKING:
    from calm_bench.lm.base import ChunkLanguageModel
    from evals.evaluate import BrierResult
    from evals.samplers import Sampler
    from evals.task_score import TaskScore
    from pipelines.scoring.evaluation_report import ScoredText
    from pipelines.scoring.scoring import Scoring
    from pipelines.store.store import Store

DECLARED = ("parameters", "training_flops", "inference_flops_per_token")
"""Attributes by which a sampler may say what it is and cost; FLOPs in all and per generated token."""
STUDY = "eval"
"""In place of a study's name, where no study trained the model."""
COMPONENTS = 4
"""Brier-n of a row."""


@dataclass(frozen=True)
class RowOfModel:
    """What the row of a model says of it, whatever it is scored under."""

    fields: dict[str, Any]

    @classmethod
    def of(cls, name: str, scoring: Scoring, store: Store) -> RowOfModel:
        """Of the model that ``scoring`` scores, called ``name``.

        Raises:
            ConfigurationError: a cost that the sampler declares is no positive number.
        """
        known = rows_of_model(scoring.model, store)
        return cls(known[0].model_dump() if known else _unknown(name, scoring))

    def entries(
        self, results: Iterable[BrierResult], tasks: Iterable[TaskScore], text: ScoredText
    ) -> tuple[Entry, ...]:
        """A row for each of ``results``; the ``tasks`` stand in all of them."""
        common = {
            "tasks": tuple(tasks),
            "text": f"{corpus_name(text.source)}, split {text.split}",
            "corpus_digest": text.digest,
            "copied_documents": text.copied_documents,
        }
        return tuple(
            Entry.model_validate(self.fields | common | _scores(result))
            for result in results
            if len(result.brier) == COMPONENTS
        )


def add_rows(path: Path, rows: Iterable[Entry]) -> Leaderboard:
    """The leaderboard in the file ``path``, if it is there, with ``rows``: in place of those of the same models under
    the same protocols.

    Raises:
        LeaderboardError: the file is something else.
    """
    new = {(row.protocol_hash, identities(row)): row for row in rows}
    old = read_board(path) if path.exists() else Leaderboard(())
    return Leaderboard([*(row for row in old if (row.protocol_hash, identities(row)) not in new), *new.values()])


def _scores(result: BrierResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in (*ROW_FIELDS, "error_unit", "estimator")} | {
        "replicates": _replicates(result),
        "decode_mode": result.protocol.decode_mode,
    }


def _replicates(result: BrierResult) -> str:
    from evals.protocol import EvaluationError
    from evals.replicates import leave_groups_out

    try:
        return leave_groups_out(result.scored.sums).to_text()
    except (EvaluationError, ValueError):
        # Two documents: the row stands without, compared unpaired.
        return ""


def _unknown(name: str, scoring: Scoring) -> dict[str, Any]:
    """What is known of a model that has no row."""
    model, network = scoring.model, scoring.network
    fields: dict[str, Any] = {
        "study": STUDY,
        "trial": 0,
        "label": name if model.sampler is not None else _last_part(name),
        "seed": 0,
        "chunk_size": scoring.sampler.chunk_size,
        "model_identity": _identity(name, model, network),
        # The path would tell others about this machine alone.
        "model_folder": _last_part(str(model.folder)) if model.sampler is None else name,
    }
    return fields | (_declared(scoring.sampler) if network is None else _network(network, scoring))


def _network(network: ChunkLanguageModel, scoring: Scoring) -> dict[str, Any]:
    from calm_bench.lm.calm import Calm

    config = network.config
    autoencoder = network.autoencoder if isinstance(network, Calm) else None
    # As long a context as it was scored with.
    steps = scoring.experiment.evaluation.context_length // network.chunk_size
    cost = inference_flops(config, None if autoencoder is None else autoencoder.config, network.vocab_size, steps)
    return {
        "kind": config.kind,
        "head": config.head.kind if config.family.uses("head") else None,
        "parameters": sum(parameter.numel() for _, parameter in network.trainable_parameters()),
        "autoencoder_parameters": sum(p.numel() for p in autoencoder.parameters()) if autoencoder is not None else 0,
        "inference_flops_per_token": cost.total,
    }


def _declared(sampler: Sampler) -> dict[str, Any]:
    """What the class of ``sampler`` says of itself.

    Raises:
        ConfigurationError: something that is no positive number.
    """
    found: dict[str, Any] = {"kind": OTHER}
    for name in DECLARED:
        value = getattr(sampler, name, None)
        # Of a torch module, parameters is a method.
        if value is None or callable(value):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigurationError(f"{type(sampler).__name__}.{name} is {value!r}, and a positive number is wanted")
        found[name] = value
    if "training_flops" in found:
        found["total_training_flops"] = found["training_flops"]
    return found


def _identity(name: str, model: TrainedModel, network: ChunkLanguageModel | None = None) -> str:
    """Identity of a model that no stage trained: of its files and code of one's own, or of a sampler's code and
    weights."""
    if model.sampler is not None:
        from evals.sampler_state import weights_digest

        state = weights_digest(model.sampler)
        code = code_digest(name.partition(":")[0])
        return identity({"sampler": name, "code": code, **({} if state is None else {"weights": state})})
    folders = [model.folder, *([model.autoencoder] if model.autoencoder is not None else [])]
    files: list[Any] = [{path.name: file_digest(path) for path in _files(folder)} for folder in folders]
    code_of_model = {} if network is None else model_code(network.config)
    return identity([*files, *([code_of_model] if code_of_model else [])])


def _files(folder: Path) -> Sequence[Path]:
    found = {path for pattern in ("config.json", *WEIGHTS) for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "model"
