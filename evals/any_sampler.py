"""BrierLM of anything that samples, on texts that are at hand: no store, no study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from calm_bench.fingerprint import identity
from evals.brier import Integers
from evals.evaluate import BrierResult, Names, evaluate_brierlm
from evals.protocol import EvaluationError, Protocol, made
from evals.samplers import Sampler

if TYPE_CHECKING:
    from calm_bench.tokens.tokenizer import Tokenizer


NAMES = Names(prefix="", text="the documents have", more_text="give more documents")
"""What messages call the arguments of :func:`score`."""


class TokenDocuments:
    """Documents of token ids as one packed stream (:class:`evals.clusters.TokenSource`)."""

    def __init__(self, documents: Sequence[Sequence[int]], vocab_size: int) -> None:
        """
        Raises:
            EvaluationError: a document without tokens, or a token outside the vocabulary; names the document.
        """
        for number, document in enumerate(documents):
            if not len(document):
                raise EvaluationError(f"document {number} has no tokens")
            if min(document) < 0 or max(document) >= vocab_size:
                raise EvaluationError(
                    f"document {number} has tokens from {min(document)} to {max(document)}, and the vocabulary those "
                    f"from 0 to {vocab_size - 1}"
                )
        self.vocab_size = vocab_size
        self._tokens: Integers = np.fromiter(chain.from_iterable(documents), dtype=np.int64)
        self._ends: Integers = np.cumsum([len(document) for document in documents])

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, span: slice, /) -> Integers:
        return self._tokens[span]

    @property
    def document_ends(self) -> Integers:
        """Position after each document's last token, ``[D]``."""
        return self._ends

    def document_of(self, positions: Integers, /) -> Integers:
        """The number of the document that each of ``positions`` lies in."""
        return np.searchsorted(self._ends, positions, side="right").astype(np.int64)

    @property
    def digest(self) -> str:
        """Identity of the documents, in their order."""
        return identity([self._tokens.tolist(), self._ends.tolist()])


def score(
    sampler: Sampler,
    documents: Sequence[str] | Sequence[Sequence[int]],
    tokenizer: Tokenizer | None = None,
    *,
    context_length: int = 256,
    first_position: int = 32,
    position_stride: int = 8,
    num_samples: int = 8,
    max_windows: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BrierResult:
    """BrierLM of ``sampler`` on ``documents``, with its standard error over documents.

    The protocol is ``matched`` (:class:`evals.protocol.Protocol`): scores are comparable where ``protocol_hash`` is
    equal, which holds documents, tokenizer and all lengths.

    Args:
        sampler: anything with ``vocab_size``, ``chunk_size`` and ``sample(contexts, num_samples, horizon, seeds)``.
        documents: held-out texts, or their token ids, which end with the end-of-text token if the model knows one.
        tokenizer: of texts; unset means bytes, with token 256 behind each text.
        context_length: tokens of a scored window.
        first_position: tokens that every target has before it, at least.
        position_stride: tokens from one target to the next; a multiple of the sampler's ``chunk_size``.
        num_samples: draws at each position, 2 or more.
        max_windows: windows scored, spread evenly, 3 or more; unset means all.
        progress: called with windows done and windows in all.

    Raises:
        EvaluationError: documents that are none, too little text, tokens outside the vocabulary, an argument out of its
            range, or positions that do not fit the chunks.
    """
    from calm_bench.tokens.byte_tokenizer import ByteTokenizer

    reader = tokenizer or ByteTokenizer()
    if isinstance(documents, str | bytes):
        raise EvaluationError(
            "documents are a list of texts, and this is a single one, whose letters would be documents"
        )
    given: list[Any] = list(documents)
    for number, document in enumerate(given):
        if not isinstance(document, str) and not isinstance(document, Sequence | np.ndarray):
            raise EvaluationError(
                f"document {number} is of the kind {type(document).__name__}, and neither a text nor token ids"
            )
    encoded = [
        [*reader.encode(document), reader.eos_id] if isinstance(document, str) else list(document) for document in given
    ]
    if not encoded:
        raise EvaluationError("there are no documents to score on")
    source = TokenDocuments(encoded, sampler.vocab_size)
    protocol = made(
        Protocol,
        corpus_digest=source.digest,
        tokenizer_digest=reader.digest if any(isinstance(document, str) for document in given) else "token ids",
        split="test",
        context_length=context_length,
        first_position=first_position,
        position_stride=position_stride,
        num_samples=num_samples,
        max_windows=max_windows,
        seed=seed,
    )
    return evaluate_brierlm(sampler, source, protocol, progress, names=NAMES)
