"""BrierLM over the next n words or the next n bytes: one ranking for models with different tokenizers.

Which unit is good for what:

- *tokens* (:func:`evals.evaluate.evaluate_brierlm`) are what models predict: least noise and least cost, for models of
  one tokenizer. The same text in another tokenizer is another task, so such scores do not compare.
- *words* compare models of any tokenizers in languages that put spaces between words. Positions are ends of words,
  where hardly any tokenizer is disturbed, and four words are some way to look ahead. Words are harder than tokens, so
  scores are lower and need more positions for the same relative error.
- *bytes* compare models of any tokenizers in any script. Four bytes are not far, and many positions lie inside a word:
  there a model of long tokens reads a context that ends in pieces of tokens, as it seldom did in training, which costs
  it score. Good for models of bytes or characters, and for text without spaces.

The estimator is that of tokens (:mod:`evals.brier`), applied to outcomes as the unit defines them.

Shape letters: P positions, S samples, N units of the longest n-gram.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from calm_bench.seeding import derive
from evals.brier import Floats, Integers, brier_scores
from evals.clusters import MIN_CLUSTERS, MIN_DOCUMENTS
from evals.estimators import PositionScores
from evals.evaluate import BrierResult, Rules
from evals.protocol import EvaluationError, made
from evals.sampling_noise import SamplingNoise, noise_of_pairs, total_noise
from evals.stats import cluster_sums, summarise
from evals.text_protocol import TextProtocol, document_digest, documents_digest, encoded
from evals.text_units import TextUnit

POSITIONS_AT_ONCE = 64


class TextSampler(Protocol):
    """Draws continuations of text at temperature 1, as text."""

    def sample_text(
        self, contexts: Sequence[str], num_samples: int, unit: TextUnit, num_units: int, seeds: Sequence[int]
    ) -> list[list[bytes]]:
        """S independent continuations of every context: beginnings of them, as UTF-8 bytes.

        A continuation is as long as it takes to be ``unit.settled`` for ``num_units``, or longer; it is shorter only
        where the model ends the text or can go no further. Bytes of characters that the model leaves incomplete are
        kept. Context c's continuations depend on ``seeds[c]`` and the context, not on the rest of the batch, as far
        as the model behind allows it.
        """
        ...


class Position(NamedTuple):
    """One scored place of a document."""

    document: int
    offset: int
    """Bytes before it."""
    context: str
    target: tuple[bytes | None, ...]
    seed: int


def positions_of(text: str, document: int, protocol: TextProtocol) -> list[Position]:
    """The scored positions of a document, none if it is too short.

    A position's random numbers follow from the protocol's seed, the document's text and the place in it, so neither
    the number of a document nor what else is scored changes its score.

    Raises:
        EvaluationError: the document is no text that UTF-8 can hold.
    """
    content = encoded(text)
    name = document_digest(text)
    return [
        Position(
            document,
            offset,
            protocol.context(content, offset),
            protocol.target(content, offset),
            derive(protocol.seed, "text", name, offset),
        )
        for offset in protocol.offsets(content)
    ]


def score_positions(sampler: TextSampler, positions: Sequence[Position], protocol: TextProtocol) -> PositionScores:
    """Brier-n of every position, ``[P, len(ngram_lengths)]``.

    Raises:
        EvaluationError: the sampler did not draw what was asked for.
    """
    unit, horizon = protocol.text_unit, protocol.horizon
    drawn = sampler.sample_text(
        [position.context for position in positions],
        protocol.num_samples,
        unit,
        horizon,
        [position.seed for position in positions],
    )
    if len(drawn) != len(positions) or any(len(texts) != protocol.num_samples for texts in drawn):
        raise EvaluationError(
            f"the model was asked for {protocol.num_samples} continuations of each of {len(positions)} contexts and "
            "drew another number of them"
        )
    samples = np.empty((len(positions), protocol.num_samples, horizon), dtype=np.int64)
    targets = np.empty((len(positions), horizon), dtype=np.int64)
    for index, (position, texts) in enumerate(zip(positions, drawn, strict=True)):
        numbers: dict[bytes | None, int] = {}
        rows = [position.target, *(unit.outcomes(text, horizon) for text in texts)]
        coded = [[numbers.setdefault(outcome, len(numbers)) for outcome in row] for row in rows]
        targets[index], samples[index] = coded[0], coded[1:]
    noise = noise_of_pairs(samples, targets, protocol.ngram_lengths) if protocol.num_samples >= 4 else None
    return PositionScores(brier_scores(samples, targets, protocol.ngram_lengths), noise)


def evaluate_text_brierlm(
    sampler: TextSampler,
    documents: Iterable[str],
    protocol: TextProtocol,
    progress: Callable[[int, int], None] | None = None,
    positions_at_once: int = POSITIONS_AT_ONCE,
) -> BrierResult:
    """Score ``sampler`` on ``documents``, each of them by itself: no context or n-gram leaves its document.

    Documents too short for any position are part of the text but not of ``num_documents``. With fewer than
    ``MIN_DOCUMENTS`` others, errors are between stretches of ``context_bytes`` instead of documents.

    Args:
        documents: those of the protocol (:func:`text_protocol_for`).
        progress: called with (positions done, positions in all).
        positions_at_once: affects speed and memory only.

    Raises:
        EvaluationError: other documents than the protocol's, too few positions, or what the sampler refuses.
    """
    begun = time.perf_counter()
    texts = list(documents)
    if documents_digest(texts) != protocol.documents_digest:
        raise EvaluationError("the documents are not those of the protocol: make it of them with text_protocol_for")
    positions = [position for number, text in enumerate(texts) for position in positions_of(text, number, protocol)]
    # Copies of a document are one: they say nothing that it does not.
    first = {text: number for number, text in reversed(list(enumerate(texts)))}
    stretches = np.array(
        [(first[texts[p.document]], p.offset // protocol.context_bytes) for p in positions], dtype=np.int64
    )
    if len(np.unique(stretches.reshape(-1, 2), axis=0)) < MIN_CLUSTERS:
        long = [text for text in texts if len(text) > protocol.first_position + protocol.max_word_bytes]
        if protocol.unit == "words" and long and not any(len(text.split()) > protocol.horizon for text in long):
            raise EvaluationError(
                f"no long document has more than {protocol.horizon} words with spaces between them: score bytes "
                "instead (calm-bench eval --protocols bytes)"
            )
        raise EvaluationError(
            f"{len(texts)} documents have {len(positions)} positions with {protocol.first_position} bytes before and "
            f"{protocol.horizon} {protocol.unit} after them, in fewer than {MIN_CLUSTERS} stretches of "
            f"{protocol.context_bytes} bytes: give more or longer documents (calm-bench eval MODEL corpus.source=...), "
            "or in Python lower first_position, position_stride or context_bytes (text_protocol_for)"
        )
    parts: list[PositionScores] = []
    for begin in range(0, len(positions), positions_at_once):
        parts.append(score_positions(sampler, positions[begin : begin + positions_at_once], protocol))
        if progress is not None:
            progress(min(begin + positions_at_once, len(positions)), len(positions))
    scores = np.concatenate([part.scores for part in parts])
    wall_time_s = time.perf_counter() - begun
    noise = total_noise([part.noise for part in parts])
    return summarised(scores, stretches, protocol, protocol.num_samples, protocol.seed, wall_time_s, noise)


def summarised(
    scores: Floats,
    stretches: Integers,
    protocol: Rules,
    num_samples: int,
    seed: int,
    wall_time_s: float,
    noise: SamplingNoise | None = None,
) -> BrierResult:
    """The result of all positions' scores, from all pairs of ``num_samples`` samples.

    Args:
        scores: ``[P, N]``
        stretches: ``[P, 2]``, the document of each position and the stretch (or window) of the document it is in.

    Raises:
        EvaluationError: positions in so few stretches that no error can be given.
    """
    stretch = np.unique(stretches.reshape(-1, 2), axis=0, return_inverse=True)[1].reshape(-1)
    num_documents, num_stretches = len(np.unique(stretches[:, 0])), len(np.unique(stretch))
    if num_stretches < MIN_CLUSTERS:
        raise EvaluationError(
            f"{len(scores)} positions in {num_stretches} stretches of text are too few for a score with an error: give "
            f"more or longer documents, with {MIN_CLUSTERS} stretches at least, or lower the protocol's first_position"
        )
    by_document = num_documents >= MIN_DOCUMENTS
    sums = cluster_sums(scores, stretches[:, 0] if by_document else stretch)
    summary = summarise(sums, match_value=2.0 / num_samples, seed=derive(seed, "bootstrap"))
    return BrierResult(
        brierlm=summary.brierlm.value,
        brierlm_se=summary.brierlm.standard_error,
        interval=summary.brierlm.interval,
        brier=tuple(summary.components.tolist()),
        brier_se=tuple(summary.component_errors.tolist()),
        brier_se_delta=tuple(summary.delta_errors.tolist()),
        brierlm_se_delta=summary.brierlm_delta_error,
        num_positions=len(scores),
        num_windows=num_stretches,
        num_documents=num_documents,
        num_samples=num_samples,
        error_unit="document" if by_document else "window",
        protocol=protocol,
        protocol_hash=protocol.hash,
        wall_time_s=wall_time_s,
        sums=sums,
        noise=noise,
    )


def text_protocol_for(documents: Iterable[str], **settings: object) -> TextProtocol:
    """The protocol of scoring ``documents``; ``settings`` are fields of :class:`TextProtocol`, ``unit`` among them.

    Raises:
        EvaluationError: a document is no text that UTF-8 can hold, or a setting that does not exist or is out of its
            range.
    """
    return made(TextProtocol, **{**settings, "documents_digest": documents_digest(documents)})
