"""Tasks on held-out text of the standard library: the true continuation, the last word, the whole text's likelihood."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from calm_bench.corpora import CorpusError
from evals.tasks.held_out import as_data_set, corpus_of, drawn, held_out_documents, random_source

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_DOCUMENTS = 500
NUM_CHOICES = 4
CONTEXT = 160
"""Most characters of a context; it begins with a word."""
CONTINUATION = 12
"""Characters of every choice, so that none wins by being short."""
PIECE = 1024
"""Characters of the texts whose likelihood is asked for."""

_INSIDE_A_WORD = re.compile(r"(?<=\w)(?=\w)")
_LAST_WORD = re.compile(r"(?<=\w) ([A-Za-z]{4,})(?=[.:;]\s)")


def choice(
    num_documents: int = NUM_DOCUMENTS,
    documents_seed: int = 0,
    corpus: Mapping[str, Any] | None = None,
    corpus_folder: str | None = None,
    **_: Any,
) -> DatasetDict:
    """Four-way continuation choice: a context, its true continuation, and three pieces of other test documents.

    lm-eval calls it with the task's ``metadata``. All pieces begin inside a word, so small models can tell them apart
    too. Text is ASCII, so that equal numbers of characters are equal numbers of bytes. Contexts have all lengths, so
    most continuations begin inside a chunk.

    Args:
        num_documents: items; documents of the corpus are taken in turn.
        documents_seed: of the items' random choices.
        corpus: settings of the corpus that the model was trained on; used if its source is ``stdlib``.
        corpus_folder: where that corpus has been written already.
    """
    texts = _texts(corpus, corpus_folder)
    numbers = random_source(documents_seed, "stdlib_choice")
    texts_with_offsets = [(index, offsets) for index, text in enumerate(texts) if (offsets := _continuable(text))]
    if len(texts_with_offsets) < 2:
        raise CorpusError("stdlib_choice needs two test documents or more: raise corpus.test_fraction")
    items: list[dict[str, Any]] = []
    while len(items) < num_documents:
        index, own = texts_with_offsets[len(items) % len(texts_with_offsets)]
        at = own[drawn(numbers, len(own))]
        true = texts[index][at : at + CONTINUATION]
        choices = [true]
        while len(choices) < NUM_CHOICES:
            other, candidates = texts_with_offsets[drawn(numbers, len(texts_with_offsets))]
            begin = candidates[drawn(numbers, len(candidates))]
            piece = texts[other][begin : begin + CONTINUATION]
            if other != index and piece not in choices:
                choices.append(piece)
        items.append({"context": _context(texts[index], at), **_shuffled(choices, numbers)})
    return as_data_set(items)


def last_word(
    num_documents: int = NUM_DOCUMENTS,
    documents_seed: int = 0,
    corpus: Mapping[str, Any] | None = None,
    corpus_folder: str | None = None,
    **_: Any,
) -> DatasetDict:
    """The last word of a sentence, of four letters or more, that occurs in the text before it.

    As in LAMBADA (arXiv 1606.06031), whoever follows the context can guess it. Arguments as of :func:`choice`.
    """
    texts = _texts(corpus, corpus_folder)
    numbers = random_source(documents_seed, "stdlib_last_word")
    found: list[dict[str, Any]] = []
    for text in texts:
        for match in _LAST_WORD.finditer(text):
            context = _context(text, match.start())
            if len(context) >= CONTEXT // 2 and re.search(rf"\b{match[1]}\b", context) and context.isascii():
                found.append({"context": context, "word": " " + match[1]})
    _shuffle(found, numbers)
    return as_data_set(found[:num_documents])


def pieces(
    num_documents: int = NUM_DOCUMENTS,
    documents_seed: int = 0,
    corpus: Mapping[str, Any] | None = None,
    corpus_folder: str | None = None,
    **_: Any,
) -> DatasetDict:
    """The beginnings of test documents, of which the likelihood is asked for. Arguments as of :func:`choice`."""
    texts = [{"text": text[:PIECE]} for text in _texts(corpus, corpus_folder)]
    _shuffle(texts, random_source(documents_seed, "stdlib_bits"))
    return as_data_set(texts[:num_documents])


def _texts(corpus: Mapping[str, Any] | None, folder: str | None) -> tuple[str, ...]:
    """Test documents of the standard library; ``folder`` counts if it is this corpus that was written there."""
    own = corpus is not None and corpus.get("source") == "stdlib"
    return held_out_documents(corpus_of("stdlib", corpus), folder if own else None)


def _continuable(text: str) -> list[int]:
    """Where a continuation can begin: inside a word, with ASCII text enough before and after it."""
    return [
        match.start()
        for match in _INSIDE_A_WORD.finditer(text)
        if match.start() >= CONTEXT
        and match.start() + CONTINUATION <= len(text)
        and text[match.start() - CONTEXT : match.start() + CONTINUATION].isascii()
    ]


def _context(text: str, end: int) -> str:
    """The last ``CONTEXT`` characters before ``end`` from the first whole word on."""
    context = text[max(0, end - CONTEXT) : end]
    if end > CONTEXT and not text[end - CONTEXT - 1].isspace():
        context = context[re.search(r"\s|$", context).start() :]  # type: ignore[union-attr]
    return context.lstrip()


def _shuffled(choices: list[str], numbers: random.Random) -> dict[str, Any]:
    """The choices in random order, and which of them was the first one given."""
    true = choices[0]
    order = list(choices)
    _shuffle(order, numbers)
    return {"choices": order, "gold": order.index(true)}


def _shuffle(items: list[Any], numbers: random.Random) -> None:
    """Fisher and Yates, of ``random()`` alone: ``random.shuffle`` may change between versions of Python."""
    for last in range(len(items) - 1, 0, -1):
        other = drawn(numbers, last + 1)
        items[last], items[other] = items[other], items[last]
