"""What the standard errors of rows are over: documents, or windows where documents are too few; copies among them."""

from __future__ import annotations

from collections.abc import Iterable

from evals.clusters import MIN_DOCUMENTS
from pipelines.results.entry import Entry


def errors_over(entries: Iterable[Entry]) -> str:
    """The unit in words: ``documents``, ``windows``, ``documents and seeds``; all that occur among ``entries``."""
    rows = list(entries)
    units = [f"{unit}s" for unit in ("document", "window") if any(entry.error_unit == unit for entry in rows)]
    seeds = ["seeds"] if any(entry.seeds for entry in rows) else []
    return " and ".join([" or ".join(units) or "documents", *seeds])


def few_documents(entries: Iterable[Entry]) -> str:
    """A warning where errors are over windows; empty where all are over documents."""
    rows = [entry for entry in entries if entry.error_unit == "window"]
    if not rows:
        return ""
    fewest = min(entry.num_documents for entry in rows)
    return (
        f"Errors over windows speak of this text alone: {fewest} documents are fewer than the {MIN_DOCUMENTS} that an "
        "error between documents takes, and on other texts the difference may be larger. A larger "
        "corpus.test_fraction, or evaluation.max_windows, scores more documents."
    )


def copies_among(entries: Iterable[Entry]) -> str:
    """That documents of the scored split are exact copies of others; empty where none is known to be."""
    copied = max((entry.copied_documents for entry in entries), default=0)
    if copied == 0:
        return ""
    subject = "One document of the scored split is an exact copy of another"
    if copied > 1:
        subject = f"{copied:,} documents of the scored split are exact copies of others"
    return f"{subject}: errors take copies for one document."
