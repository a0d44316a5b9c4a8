"""BrierLM with parts of the documents left out: what two rows need to be compared in pairs wherever they are.

The delete-a-group jackknife (Kott 2001): the documents are dealt into G groups, the score is computed G times, each
time without one group, and ``(G-1)/G`` times the sum of the squared deviations from their mean estimates the variance.
The difference of two models has replicates as well, the differences of theirs, so G numbers a model are enough for
the paired error of any two, of a mean over seeds, or of a whole curve. With as many groups as documents it is the
ordinary jackknife.

Shape letters: D documents, N Brier components, G groups.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np

from evals.brier import Floats, brierlm
from evals.stats import ClusterSums

NUM_GROUPS = 100
"""More than so many groups would make the error itself hardly more precise: it is good to 1/sqrt(2(G-1))."""


@dataclass(frozen=True)
class Replicates:
    """A model's score with each group of documents left out."""

    documents: str
    """Identity of the documents and of the number of positions in each: only where it is equal, pairs can be made."""
    scores: Floats
    """``[G]``"""

    def to_text(self) -> str:
        """``identity:base64 of little-endian float32``, about 550 characters."""
        return f"{self.documents}:{base64.b64encode(self.scores.astype('<f4').tobytes()).decode()}"

    @classmethod
    def from_text(cls, text: str) -> Replicates:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        documents, colon, encoded = text.partition(":")
        scores = np.frombuffer(base64.b64decode(encoded, validate=True), "<f4").astype(np.float64)
        if not colon or len(scores) < 3 or not np.isfinite(scores).all():
            raise ValueError(
                "not the scores of a jackknife: an identity, a colon and the base64 of three or more floats"
            )
        return cls(documents, scores)


def leave_groups_out(sums: ClusterSums, num_groups: int = NUM_GROUPS) -> Replicates:
    """The replicates of a model's BrierLM, from ``sums`` of at least three documents.

    Raises:
        ValueError: fewer than three documents.
    """
    num_documents = len(sums.counts)
    if num_documents < 3:
        raise ValueError("errors by leaving documents out need at least three")
    # Dealt like cards: neighbouring documents, which may be alike, fall into different groups.
    group = np.arange(num_documents) % min(num_groups, num_documents)
    totals = np.zeros((group.max() + 1, sums.totals.shape[1]))
    np.add.at(totals, group, sums.totals)
    counts = np.bincount(group, sums.counts)
    rest = (sums.totals.sum(axis=0) - totals) / (sums.counts.sum() - counts)[:, None]
    described = sums.clusters.astype("<i8").tobytes() + sums.counts.astype("<f8").tobytes()
    return Replicates(hashlib.sha256(described).hexdigest()[:16], np.asarray(brierlm(rest)))


def deviations(scores: Floats) -> Floats:
    """``[..., G]`` replicates as deviations whose products sum to (co)variances over documents."""
    num_groups = scores.shape[-1]
    scaled: Floats = (scores - scores.mean(axis=-1, keepdims=True)) * np.sqrt((num_groups - 1) / num_groups)
    return scaled
