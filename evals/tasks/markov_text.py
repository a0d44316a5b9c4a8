"""Continuation choice in a language of known truth, where the best possible accuracy is known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calm_bench.corpora import CorpusError
from calm_bench.corpora.markov import Floats, MarkovLanguage
from evals.tasks.held_out import as_data_set, corpus_of, drawn, held_out_documents, random_source

if TYPE_CHECKING:
    from datasets import DatasetDict

NUM_DOCUMENTS = 500
NUM_CHOICES = 4
CONTEXT = 64
CONTINUATION = 6
"""Letters of every choice."""


def choice(
    num_documents: int = NUM_DOCUMENTS,
    documents_seed: int = 0,
    corpus: Mapping[str, Any] | None = None,
    corpus_folder: str | None = None,
    **_: Any,
) -> DatasetDict:
    """Four-way choice: how held-out text of the language goes on, among three strings of uniformly random letters.

    Given such choices, the true one is c_j with probability P(c_j | context) / sum_i P(c_i | context), so ranking by
    the true likelihood is optimal, and the largest of these probabilities, ``best``, is the item's best possible
    expected accuracy.

    Args:
        num_documents: items.
        documents_seed: of the items' random choices.
        corpus: settings of the corpus that the model was trained on; its language is used if its source is ``markov``.
        corpus_folder: where that corpus has been written already.
    """
    settings = corpus_of("markov", corpus)
    own = corpus is not None and corpus.get("source") == "markov"
    language = MarkovLanguage(settings.markov)
    shortest = max(language.order, CONTEXT // 2)
    documents = held_out_documents(settings, corpus_folder if own else None)
    texts = [text for text in documents if len(text) >= shortest + CONTINUATION]
    if not texts:
        raise CorpusError(
            f"markov_choice needs test documents of {shortest + CONTINUATION} letters or more: raise "
            "corpus.markov.document_length or corpus.test_fraction"
        )
    numbers = random_source(documents_seed, "markov_choice")
    items: list[dict[str, Any]] = []
    while len(items) < num_documents:
        text = texts[len(items) % len(texts)]
        at = shortest + drawn(numbers, len(text) - CONTINUATION - shortest + 1)
        context = text[max(0, at - CONTEXT) : at]
        choices = [text[at : at + CONTINUATION]]
        while len(choices) < NUM_CHOICES:
            letters = "".join(language.letters[drawn(numbers, len(language.letters))] for _ in range(CONTINUATION))
            if letters not in choices:
                choices.append(letters)
        gold = drawn(numbers, NUM_CHOICES)
        choices[0], choices[gold] = choices[gold], choices[0]
        probabilities = choice_probabilities(language, context, choices)
        best = float(probabilities.max())
        items.append({"context": context, "choices": choices, "gold": gold, "best": best})
    return as_data_set(items)


def choice_probabilities(language: MarkovLanguage, context: str, choices: Sequence[str]) -> Floats:
    """``[choices]``: the probability of each choice being the true one, of those given."""
    codes = {letter: code for code, letter in enumerate(language.letters)}
    before = [codes[letter] for letter in context]
    joint = []
    for letters in choices:
        probability, text = 1.0, list(before)
        for letter in letters:
            probability *= float(language.next_probabilities(text)[codes[letter]])
            text.append(codes[letter])
        joint.append(probability)
    probabilities: Floats = np.array(joint) / np.sum(joint)
    return probabilities


def process_results(document: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Accuracy, and beside it the best that was possible (lm-eval calls it for every item)."""
    scores = [score for score, _ in results]
    return {"acc": float(int(np.argmax(scores)) == document["gold"]), "best_acc": document["best"]}
