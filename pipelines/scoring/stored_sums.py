"""Per-document scores of a model: those that its evaluation left in the store, or scored now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.store.store import Store

if TYPE_CHECKING:
    from evals.sums import ScoredSums
    from pipelines.scoring.scoring import Scoring


def sums_of(scoring: Scoring, store: Store, progress: Callable[[int, int], None] | None = None) -> ScoredSums:
    """The sums under the protocol of ``scoring``; nothing is scored that the store holds.

    Raises:
        EvaluationError: the text is too short, or the protocol's positions do not fit the model's chunks.
    """
    wanted = scoring.protocol().hash
    found = _stored(scoring.model.folder, store, wanted)
    return scoring.brierlm(None, progress).scored if found is None else found


def _stored(model_folder: Path, store: Store, protocol_hash: str) -> ScoredSums | None:
    from evals.protocol import EvaluationError
    from evals.sums import FILE, load_sums

    identity = model_folder.parent.name
    for evaluation, stage in store.descriptions("evaluation"):
        if stage["inputs"]["language_model"]["identity"] != identity:
            continue
        folder = store.find_folder("evaluation", evaluation)
        if folder is None:
            continue
        try:
            scored = load_sums(folder / FILE)
        except EvaluationError:
            # Evaluations from before sums were kept: scored again.
            continue
        if scored.protocol_hash == protocol_hash:
            return scored
    return None
