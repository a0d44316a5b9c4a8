"""Tasks that need no network: deterministic, of held-out text, with a true answer and, for markov, a known best."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, read_documents, write_corpus
from calm_bench.corpora.markov import MarkovLanguage
from evals.tasks import TASKS_FOLDER, markov_text, shipped_tasks, stdlib_text

MARKOV: dict[str, Any] = Corpus.model_validate(
    {"source": "markov", "markov": {"alphabet_size": 4, "order": 2, "num_documents": 60, "document_length": 200}}
).model_dump(mode="json")


@pytest.fixture(scope="module")
def stdlib(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(Corpus(), folder)
    return Corpus().model_dump(mode="json"), str(folder)


def test_choices_are_held_out_text(stdlib: tuple[dict[str, Any], str]) -> None:
    corpus, folder = stdlib
    items = stdlib_text.choice(60, corpus=corpus, corpus_folder=folder)["test"]
    held_out = list(read_documents(Path(folder), "test"))
    trained = "\0".join(read_documents(Path(folder), "train"))
    golds, repeated = [], 0
    for item in items:
        true = item["context"] + item["choices"][item["gold"]]
        assert any(true in text for text in held_out)
        repeated += true in trained
        assert len(set(item["choices"])) == 4
        assert {len(choice) for choice in item["choices"]} == {stdlib_text.CONTINUATION}
        assert {len(choice.encode()) for choice in item["choices"]} == {stdlib_text.CONTINUATION}
        assert not item["context"][-1].isspace()
        assert not item["context"][0].isspace()
        golds.append(item["gold"])
    assert set(golds) == {0, 1, 2, 3}
    assert repeated <= 6  # documentation repeats itself, but not much
    again = stdlib_text.choice(60, corpus=corpus, corpus_folder=folder)["test"]
    assert again.to_list() == items.to_list()
    other = stdlib_text.choice(60, documents_seed=1, corpus=corpus, corpus_folder=folder)["test"]
    assert other.to_list() != items.to_list()
    # Contexts of all lengths: continuations begin inside chunks.
    assert len({len(item["context"]) % 4 for item in items}) == 4


@pytest.mark.slow
def test_the_corpus_is_written_where_none_is_given(stdlib: tuple[dict[str, Any], str]) -> None:
    """Another corpus's folder is not taken for the standard library's."""
    written = stdlib_text.choice(5, corpus=MARKOV, corpus_folder="nowhere")["test"]
    assert written.to_list() == stdlib_text.choice(5, 0, *stdlib)["test"].to_list()


def test_last_words_occur_before(stdlib: tuple[dict[str, Any], str]) -> None:
    items = stdlib_text.last_word(50, corpus=stdlib[0], corpus_folder=stdlib[1])["test"]
    assert len(items) == 50
    held_out = "\0".join(read_documents(Path(stdlib[1]), "test"))
    for item in items:
        assert item["word"].strip() in item["context"]
        assert item["context"] + item["word"] in held_out
        assert len(item["word"]) >= 5


def test_best_accuracy_is_exact() -> None:
    """Against enumeration of the whole language, and against what the true likelihood's ranking reaches."""
    language = MarkovLanguage(Corpus.model_validate(MARKOV).markov)
    context, choices = "abcdab", ["ab", "cd", "dd", "ba"]
    every = {"".join(pair): 0.0 for pair in product(language.letters, repeat=2)}
    codes = [language.letters.index(letter) for letter in context]
    for pair in every:
        first, second = (language.letters.index(letter) for letter in pair)
        every[pair] = float(
            language.next_probabilities(codes)[first] * language.next_probabilities([*codes, first])[second]
        )
    assert sum(every.values()) == pytest.approx(1)
    expected = np.array([every[choice] for choice in choices])
    found = markov_text.choice_probabilities(language, context, choices)
    np.testing.assert_allclose(found, expected / expected.sum())

    items = markov_text.choice(400, corpus=MARKOV)["test"]
    right = []
    for item in items:
        probabilities = markov_text.choice_probabilities(language, item["context"], item["choices"])
        results = [(float(np.log(max(p, 1e-300))), False) for p in probabilities]
        scored = markov_text.process_results(item, results)
        assert scored["best_acc"] == pytest.approx(probabilities.max())
        right.append(scored["acc"] - scored["best_acc"])
        worst = [(-value, False) for value, _ in results]
        assert scored["acc"] >= 0
        assert markov_text.process_results(item, worst)["acc"] <= 1
    # Expected accuracy of the optimum is `best`, item by item; their difference is noise.
    assert abs(np.mean(right)) < 4 * np.std(right) / len(right) ** 0.5
    assert 0.5 < np.mean(items["best"]) < 0.99


def test_documents_too_short_for_a_task_are_refused() -> None:
    short = {**MARKOV, "markov": {**MARKOV["markov"], "document_length": 20}}
    with pytest.raises(CorpusError, match=r"needs test documents of 38 letters.*document_length"):
        markov_text.choice(5, corpus=short)


def test_task_files_load_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata={"num_documents": 3})
    assert set(shipped_tasks()) == set(manager.all_subtasks)
    loaded = manager.load(["stdlib_choice", "stdlib_last_word", "stdlib_bits", "markov_choice"])["tasks"]
    assert {name: len(list(task.test_docs())) for name, task in loaded.items()} == dict.fromkeys(loaded, 3)
    task = loaded["stdlib_choice"]
    assert task.doc_to_text(task.test_docs()[0]) == task.test_docs()[0]["context"]
    assert task.doc_to_choice(task.test_docs()[0]) == task.test_docs()[0]["choices"]
