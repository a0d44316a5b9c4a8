"""BrierLM with each group of documents left out, from an evaluation's folder."""

from __future__ import annotations

from pathlib import Path


def stored_replicates(evaluation: Path | None, protocol_hash: str) -> str:
    """The replicates of the evaluation in that folder; empty where it left no sums that fit."""
    from evals.protocol import EvaluationError
    from evals.replicates import leave_groups_out
    from evals.sums import FILE, load_sums

    if evaluation is None or not (evaluation / FILE).is_file():
        return ""
    try:
        scored = load_sums(evaluation / FILE)
        return leave_groups_out(scored.sums).to_text() if scored.protocol_hash == protocol_hash else ""
    except (EvaluationError, ValueError):
        # Two documents, or a file of another version: the row stands without, compared unpaired.
        return ""
