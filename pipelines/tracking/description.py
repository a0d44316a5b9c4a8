"""What people read first in MLflow: a study's and a trial's description, in Markdown."""

from __future__ import annotations

import shlex

from pipelines.common.numbers import clipped_with_error, compact, printable
from pipelines.common.redact import redact
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import pooled
from pipelines.store.provenance import ProvenanceRecord
from pipelines.study.config import Study

LONGEST = 8000
"""Characters of a tag, which a description is."""


def study_note(study: Study, leaderboard: Leaderboard, provenance: ProvenanceRecord) -> str:
    """The study's purpose, its leaderboard and how to do it again.

    Seeds of one configuration share a row. As many rows as a tag can hold, the best of each protocol first.

    Args:
        provenance: of one of its models, as far as it is known.
    """
    from pipelines.report.tables import markdown

    whole = Leaderboard(pooled(leaderboard))
    head, tail = study_head(study), _reproduction(provenance)
    for count in _fewer(max((len(group.entries) for group in whole.groups), default=0)):
        shown = Leaderboard(entry for group in whole.groups for entry in group.entries[:count])
        cut = f"\nThe first {len(shown)} of {len(whole)} rows; the artifact `leaderboard.md` has all.\n"
        text = "\n".join([head, markdown(shown), cut if len(shown) < len(whole) else "", tail])
        if len(text) <= LONGEST:
            return text
    return f"{head}\nThe leaderboard is in the artifact `leaderboard.md`.\n\n{tail}"[:LONGEST]


def study_head(study: Study) -> str:
    """What can be said before there are results."""
    return redact(f"{study.description.strip()}\n" if study.description.strip() else "")[: LONGEST // 4]


def trial_note(entry: Entry) -> str:
    """The row in words, and what can be done with its model."""
    kind = "Token model" if entry.kind == "token" else entry.family + (f", {entry.head} head" if entry.head else "")
    autoencoder = entry.autoencoder_training_flops
    lines = [
        f"**BrierLM {clipped_with_error(entry.brierlm, entry.brierlm_se)}** on {entry.num_documents:,} documents "
        f"(protocol `{entry.protocol_hash}`), decoded by {printable(entry.decode_mode)}.",
    ]
    if entry.compute is not None and entry.parameters is not None:
        lines.append(
            f"{kind}, {entry.parameters:,} parameters, trained with {entry.compute.training:.3g} FLOPs"
            + (f" and its autoencoder with {autoencoder:.3g}" if autoencoder else "")
            + f"; {entry.compute.inference:.3g} FLOPs a generated token."
        )
    if entry.generated_tokens_per_second is not None:
        speed = compact(entry.generated_tokens_per_second)
        lines.append(f"It wrote {speed} tokens/s ({printable(entry.generation)}).")
    folder = redact(entry.model_folder)
    lines.append(
        f"Where calm-bench is installed:\n\n    calm-bench generate {shlex.quote(folder)}\n\nor "
        "`mlflow.pyfunc.load_model`, with the study's store at hand or named: `model_config={'store': PATH}`."
    )
    return "\n\n".join(lines)[:LONGEST]


def end_note(state: str, error: str) -> str:
    """Why a trial has no row."""
    return f"**{state.capitalize()}**: {printable(redact(error))}"[:LONGEST]


def _reproduction(provenance: ProvenanceRecord) -> str:
    versions, git = provenance.versions, provenance.git
    known = [f"{name} {versions[name]}" for name in ("calm-bench", "python", "torch") if name in versions]
    if git is not None:
        known.append(f"commit {git.commit[:12]}{' with changes' if git.modified else ''}")
    made_with = f"\n\nMade with {', '.join(known)}." if known else ""
    return (
        "### Do it again\n\nDownload `study.yaml` from this run's artifacts. Then\n\n"
        f"    calm-bench run study.yaml\n{made_with}"
    ).rstrip() + "\n"


def _fewer(count: int) -> list[int]:
    counts = [count]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts
