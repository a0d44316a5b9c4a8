"""Requests of our own that models of lm-eval answer: ``sample_text`` and ``sample_tokens``.

lm-eval calls the method of a model that has the name of a request's type. Its own request types return text or
likelihoods, never samples of tokens, and no more than one answer of equal requests can be relied upon. The functions
here become methods of its base class ``LM`` (:func:`evals.adapters.lm_eval_internals.add_request_types`), so that its
own ``hf`` model answers them, and so does any other that has none of its own:

- a model with an attribute ``token_sampler``, a pair of a :class:`evals.samplers.Sampler` and its tokenizer, answers
  both from that;
- ``hf``, if causal, likewise: its network and tokenizer are taken as they are (:class:`HuggingFaceSampler`);
- others answer ``sample_text`` with their ``generate_until``, and refuse ``sample_tokens``, having shown no tokens.

A request's arguments are a document and the settings of a protocol; its answer has the scores of all positions of the
document, ``[P, N]``, and where they are.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calm_bench.seeding import derive
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import Tokenizer
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.adapters.lm_eval_model import LmEvalTextSampler
from evals.adapters.token_text import TokenTextSampler
from evals.brier import Integers, brier_scores
from evals.evaluate import WINDOWS_AT_ONCE
from evals.protocol import EvaluationError, Protocol, made
from evals.samplers import Sampler, continue_windows
from evals.text_brier import POSITIONS_AT_ONCE, TextSampler, positions_of, score_positions
from evals.text_protocol import TextProtocol, combined_digest, document_digest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Answer = dict[str, Any]
"""``scores``, ``places`` (offset, and number of the stretch it is in), and what else the request type tells."""

UNKNOWN = "unknown"
"""Stands for a digest that the request does not need: no random number depends on it."""


def sample_text(lm: Any, requests: Sequence[Instance]) -> list[Answer]:
    """Score documents in words or bytes; arguments are a text and settings of :class:`TextProtocol`.

    Raises:
        EvaluationError: the model cannot be asked for this.
    """
    sampler = text_sampler_of(lm)
    protocols = [made(TextProtocol, **settings, documents_digest=UNKNOWN) for _, settings in _arguments(requests)]
    answers: list[Answer] = [{"scores": [], "places": []} for _ in requests]
    grouped: dict[TextProtocol, list[Any]] = defaultdict(list)
    for number, ((text, _), protocol) in enumerate(zip(_arguments(requests), protocols, strict=True)):
        grouped[protocol] += positions_of(text, number, protocol)
    for protocol, positions in grouped.items():
        for begin in range(0, len(positions), POSITIONS_AT_ONCE):
            batch = positions[begin : begin + POSITIONS_AT_ONCE]
            scores = score_positions(sampler, batch, protocol).scores.tolist()
            for position, score in zip(batch, scores, strict=True):
                answer = answers[position.document]
                answer["scores"].append(score)
                answer["places"].append((position.offset, position.offset // protocol.context_bytes))
    return answers


def sample_tokens(lm: Any, requests: Sequence[Instance]) -> list[Answer]:
    """Score documents in the model's own tokens; arguments are a text and settings of :class:`Protocol`.

    A document, an end-of-text token behind it, is cut into windows of the context length, a shorter last one
    included; positions are the protocol's, as far as the window reaches.

    Raises:
        EvaluationError: the model shows no tokens, or cannot continue a text at these positions.
    """
    sampler, tokenizer = token_sampler_of(lm)
    if sampler.vocab_size != tokenizer.vocab_size:
        raise EvaluationError(
            f"the model has a vocabulary of {sampler.vocab_size} tokens, its tokenizer {tokenizer.name} one of "
            f"{tokenizer.vocab_size}"
        )
    answers: list[Answer] = []
    windows: dict[tuple[Protocol, int], list[_Window]] = defaultdict(list)
    for number, (text, settings) in enumerate(_arguments(requests)):
        protocol = token_protocol(settings, [], tokenizer.digest)
        _check_positions(sampler, protocol)
        ids = np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype=np.int64)
        answers.append({"scores": [], "places": [], "tokenizer_digest": tokenizer.digest})
        for window in _windows(ids, number, document_digest(text), protocol):
            windows[protocol, len(window.positions)].append(window)
    for (protocol, _), own in windows.items():
        for begin in range(0, len(own), WINDOWS_AT_ONCE):
            _score_windows(sampler, own[begin : begin + WINDOWS_AT_ONCE], protocol, answers)
    return answers


def token_protocol(settings: Mapping[str, Any], digests: Sequence[str], tokenizer_digest: str) -> Protocol:
    """The protocol of documents that are read one by one, unlike the packed text of a token stream.

    Args:
        settings: fields of :class:`Protocol`; ``max_windows`` counts for each document.
        digests: of the documents.
    """
    corpus = f"documents one by one: {combined_digest(digests)}"
    own = {"corpus_digest": corpus, "tokenizer_digest": tokenizer_digest}
    return made(Protocol, **{"split": "test", "seed": 0, "max_windows": None, **settings, **own})


def text_sampler_of(lm: Any) -> TextSampler:
    """What draws text from a model of lm-eval."""
    if not _shows_tokens(lm):
        return LmEvalTextSampler(lm)
    sampler, tokenizer = token_sampler_of(lm)
    return TokenTextSampler(sampler, tokenizer, getattr(sampler, "prefix", ()))


def token_sampler_of(lm: Any) -> tuple[Sampler, Tokenizer]:
    """What draws tokens from a model of lm-eval, and their tokenizer.

    Raises:
        EvaluationError: it shows text only.
        TokenizerError: its tokenizer has no end-of-text token.
    """
    if not _shows_tokens(lm):
        raise EvaluationError(
            f"the model {type(lm).__name__} shows text but no tokens: use the task brierlm_words, or give the model an "
            "attribute token_sampler"
        )
    if hasattr(lm, "token_sampler"):
        sampler, tokenizer = lm.token_sampler
        if not hasattr(tokenizer, "vocab_size"):
            raise EvaluationError("the model's folder has no tokenizer, so no text can be scored: give tokenizer=NAME")
        return sampler, tokenizer
    # A copy, since the wrapper lifts the limit on lengths.
    wrapped = HuggingFaceTokenizer(copy.deepcopy(lm.tokenizer), str(lm.tokenizer.name_or_path).rpartition("/")[2])
    return HuggingFaceSampler(lm.model, wrapped), wrapped


def _shows_tokens(lm: Any) -> bool:
    from lm_eval.models.huggingface import HFLM

    return hasattr(lm, "token_sampler") or (isinstance(lm, HFLM) and lm.backend == "causal")


class _Window(NamedTuple):
    document: int
    start: int
    number: int
    tokens: Integers
    """Up to the end of the last target."""
    positions: tuple[int, ...]
    seed: int


def _windows(ids: Integers, document: int, name: str, protocol: Protocol) -> Iterator[_Window]:
    length = protocol.context_length
    starts = range(0, len(ids), length)
    count = len(starts) if protocol.max_windows is None else min(len(starts), protocol.max_windows)
    for number in (index * len(starts) // count for index in range(count)):
        start = starts[number]
        reach = min(length, len(ids) - start)
        positions = tuple(position for position in protocol.positions if position + protocol.horizon <= reach)
        if positions:
            tokens = ids[start : start + positions[-1] + protocol.horizon]
            yield _Window(document, start, number, tokens, positions, derive(protocol.seed, "tokens", name, start))


def _score_windows(sampler: Sampler, windows: Sequence[_Window], protocol: Protocol, answers: list[Answer]) -> None:
    tokens = np.stack([window.tokens for window in windows])
    positions = windows[0].positions
    targets = tokens[:, np.array(positions)[:, None] + np.arange(protocol.horizon)]
    seeds = [window.seed for window in windows]
    samples = continue_windows(sampler, tokens, positions, protocol.num_samples, protocol.horizon, seeds, targets)
    for window, scores in zip(windows, brier_scores(samples, targets, protocol.ngram_lengths).tolist(), strict=True):
        answer = answers[window.document]
        answer["scores"] += scores
        answer["places"] += [(window.start + position, window.number) for position in positions]


def _check_positions(sampler: Sampler, protocol: Protocol) -> None:
    for name in ("first_position", "position_stride"):
        if getattr(protocol, name) % sampler.chunk_size:
            raise EvaluationError(
                f"{name} {getattr(protocol, name)} of the task's protocol is not a multiple of the model's chunk size "
                f"{sampler.chunk_size}, so the model cannot continue the text there"
            )


def _arguments(requests: Sequence[Instance]) -> Iterator[tuple[str, dict[str, Any]]]:
    for request in requests:
        text, settings = request.args
        yield text, settings
