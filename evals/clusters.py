"""What the error of a score is over: the documents of a text, or windows where there are too few."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from evals.brier import Integers
from evals.protocol import EvaluationError

ErrorUnit = Literal["document", "window"]

MIN_DOCUMENTS = 10
"""Below this many documents a standard error between documents is mostly noise, and windows take their place."""
MIN_CLUSTERS = 3


class TokenSource(Protocol):
    """The part of :class:`calm_bench.tokens.TokenStream` that scoring needs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def document_ends(self) -> Integers:
        """Position after each document's last token, ``[D]``: by their tokens copies are known."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> Integers: ...

    def document_of(self, positions: Integers, /) -> Integers: ...


@dataclass(frozen=True)
class Clusters:
    """What is resampled as a whole."""

    index: Integers
    """Cluster of each target."""
    unit: ErrorUnit
    num_documents: int


def clusters_of(stream: TokenSource, targets: Integers, windows: Integers) -> Clusters:
    """The documents of the positions ``targets`` of ``stream``, or their ``windows`` where documents are too few.

    Documents of equal tokens are one.
    """
    documents, offsets = first_copies(stream, stream.document_of(targets), targets)
    num_documents = len(np.unique(documents))
    if num_documents >= MIN_DOCUMENTS:
        return Clusters(documents, "document", num_documents)
    if (offsets < 0).all():
        return Clusters(windows, "window", num_documents)
    # The unit that windows are in a text without copies: a stretch of a document, whichever copy it is read in.
    length = max(1, int(np.ptp(targets) + 1) // len(np.unique(windows)))
    stretches = np.where(offsets < 0, windows, offsets // length)
    # Documents without copies are told apart by their windows alone, as ever.
    keys = np.stack([np.where(offsets < 0, -1, documents), stretches])
    stretches = np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)
    if len(np.unique(stretches)) < MIN_CLUSTERS:
        raise EvaluationError(
            f"the scored text is copies of {num_documents} documents, in fewer than {MIN_CLUSTERS} different stretches "
            f"of {length} tokens, so no error can be given: add other documents to the corpus"
        )
    return Clusters(stretches, "window", num_documents)


def first_copies(stream: TokenSource, documents: Integers, targets: Integers) -> tuple[Integers, Integers]:
    """Documents by the first of those scored that has the same tokens, and how far into it each target is.

    A copy is no other text: what is drawn from the same language shrinks an error, copies of one document may not.

    Returns:
        ``[T]`` and ``[T]``; the offset is -1 in documents of which no copy is scored.
    """
    ends, scored = stream.document_ends, np.unique(documents)
    offsets = np.full(len(targets), -1, dtype=np.int64)
    first: dict[bytes, int] = {}
    same = {}
    for document in scored.tolist():
        begin = int(ends[document - 1]) if document else 0
        tokens = np.ascontiguousarray(stream[begin : int(ends[document])])
        same[document] = first.setdefault(hashlib.sha256(tokens.tobytes()).digest(), document)
    if len(first) == len(scored):
        return documents, offsets
    copied = {one for other, one in same.items() if one != other}
    for index, (document, target) in enumerate(zip(documents.tolist(), targets.tolist(), strict=True)):
        if same[document] in copied:
            offsets[index] = target - (int(ends[document - 1]) if document else 0)
    return np.array([same[document] for document in documents.tolist()], dtype=np.int64), offsets
