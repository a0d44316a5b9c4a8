"""What is wrong with rows that somebody sent in: numbers that are missing, impossible or at odds with each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard

AGREES = 1e-6
"""Relative difference that sums of the same numbers may have on different machines."""
_PROTOCOL, _DIGEST, _MODEL = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}|[0-9a-f]{16}"), re.compile(r"\w+")


def problems_of(board: Leaderboard) -> list[str]:
    """A sentence for each thing that is wrong with a row, the row's label first; empty where all are in order.

    Tells what a row must have to be compared (protocol, digests, errors, counts), and numbers that contradict each
    other. It cannot tell whether they were measured.
    """
    return [f"{entry.label} (trial {entry.trial}): {problem}" for entry in board for problem in _problems(entry)]


def _problems(entry: Entry) -> Iterator[str]:
    identities = (
        ("protocol_hash", entry.protocol_hash, _PROTOCOL, "16 hex digits"),
        ("corpus_digest", entry.corpus_digest, _DIGEST, "a digest in hex digits"),
        ("model_identity", entry.model_identity, _MODEL, "the identity of a training"),
    )
    for name, text, form, wanted in identities:
        if not form.fullmatch(text):
            yield f"{name} is {text[:80]!r} instead of {wanted}"
    counts = (("num_documents", 1), ("num_positions", 1), ("num_samples", 1), ("parameters", 1))
    for name, least in counts:
        count = getattr(entry, name)
        if count is not None and count < least:
            yield f"{name} is {count}, less than {least}"
    for n, (value, error) in enumerate(entry.parts, 1):
        if value > 1:
            yield f"Brier-{n} is {value:.4g}, and no forecast can have more than 1"
        if error <= 0:
            yield f"Brier-{n} has no standard error"
    if entry.brierlm < 0 or (entry.brierlm > 0 and entry.brierlm_se <= 0):
        yield f"BrierLM is {entry.brierlm:.4g} with the error {entry.brierlm_se:.4g}"
    if not entry.seeds and not math.isclose(entry.brierlm, expected := _brierlm(entry), rel_tol=1e-2, abs_tol=0.01):
        # Rows of several seeds hold means, and a mean of geometric means is none of the means.
        yield f"BrierLM is {entry.brierlm:.4g}, but its components give {expected:.4g}"
    for name in ("training_flops", "inference_flops_per_token"):
        cost = getattr(entry, name)
        if cost is not None and cost <= 0:
            yield f"{name} is {cost:.4g}: a trained model cost something, and one whose cost is not known has null"
    parts = (entry.training_flops or 0.0) + entry.autoencoder_training_flops
    if entry.total_training_flops is not None and entry.total_training_flops < parts * (1 - AGREES):
        yield f"total_training_flops is {entry.total_training_flops:.4g}, less than its parts, {parts:.4g}"


def _brierlm(entry: Entry) -> float:
    """100 times the geometric mean of the components; 0 where one is not positive (paper section 4)."""
    return 100 * math.prod(entry.brier) ** 0.25 if min(entry.brier) > 0 else 0.0
