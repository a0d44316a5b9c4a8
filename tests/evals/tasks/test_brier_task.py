"""BrierLM inside lm-eval: known languages, lm-eval's own ``hf`` model, our models, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.models
import numpy as np
import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from calm_bench.config import Corpus, Markov, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.tokens import ByteTokenizer, TokenStream, write_tokens
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.adapters.token_text import TokenTextSampler
from evals.evaluate import MarkovSampler, evaluate_brierlm
from evals.protocol import EvaluationError, Protocol
from evals.tasks import TASKS_FOLDER
from evals.tasks.held_out import held_out_documents
from evals.text_brier import evaluate_text_brierlm
from evals.text_protocol import TextProtocol
from tests.evals.tiny_models import TEXT, save_tiny

MARKOV = Markov(alphabet_size=5, concentration=0.3, num_documents=300, document_length=41)
CORPUS = Corpus(source="markov", markov=MARKOV, test_fraction=0.8)
TOKENS = {"context_length": 42, "first_position": 4, "position_stride": 8, "num_samples": 8, "max_windows": None}


def run(
    model: Any, protocols: dict[str, dict[str, Any]], corpus: Corpus, folder: Path | None = None, **settings: Any
) -> dict[str, Any]:
    """The tasks with other protocols, as a user's own call; lm-eval's seeds are left alone."""
    seeds = {f"{name}_seed": None for name in ("random", "numpy_random", "torch_random", "fewshot_random")}
    metadata = {**protocols, "corpus": corpus.model_dump(mode="json"), "corpus_folder": folder and str(folder)}
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata=metadata)
    found = lm_eval.simple_evaluate(model=model, tasks=list(protocols), task_manager=manager, **seeds, **settings)
    assert found is not None
    return dict(found)


class TextOnly(LM):  # type: ignore[misc]
    """Shows no tokens."""

    def generate_until(self, requests: list[Any]) -> list[str]:
        return ["word " * 5 for _ in requests]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise AssertionError("no likelihood is to be asked for")

    loglikelihood_rolling = loglikelihood


class Known(TextOnly):
    """A language as the model of itself."""

    token_sampler = (MarkovSampler(MarkovLanguage(MARKOV)), ByteTokenizer())


def test_a_known_model_scores_its_exact_value_as_everywhere(tmp_path: Path) -> None:
    write_corpus(CORPUS, tmp_path / "corpus")
    write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "tokens")
    stream = TokenStream.open(tmp_path / "tokens", "test")
    rules = Protocol(corpus_digest="c", tokenizer_digest="t", split="test", seed=0, **TOKENS)
    packed = evaluate_brierlm(Known.token_sampler[0], stream, rules)
    exact = np.array([MarkovLanguage(MARKOV).exact_brier(n) for n in (1, 2, 3, 4)])

    in_bytes = {"unit": "bytes", "first_position": 4, "max_positions": None}
    results = run(Known(), {"brierlm": TOKENS, "brierlm_words": in_bytes}, CORPUS, tmp_path / "corpus")
    for name in ("brierlm", "brierlm_words"):
        scores = results["results"][name]
        value = np.array([scores[f"brier_{n},none"] for n in (1, 2, 3, 4)])
        error = np.array([scores[f"brier_{n}_stderr,none"] for n in (1, 2, 3, 4)])
        assert np.abs((value - exact) / error).max() < 3.5
        assert np.abs((value - packed.brier) / np.hypot(error, packed.brier_se)).max() < 3.5
        assert scores["brierlm_stderr,none"] == pytest.approx(packed.brierlm_se, rel=0.4)
        assert (scores["num_samples,none"], scores["num_documents,none"]) == (8, packed.num_documents)
        assert "±" in make_table(results)
    assert results["results"]["brierlm"]["num_positions,none"] == packed.num_positions


@pytest.mark.slow
def test_both_tasks_run_on_the_hf_model_of_lm_eval(tmp_path: Path) -> None:
    """A random GPT-2 in a folder; scores are those of our own call."""
    folder = save_tiny(tmp_path / "gpt2", positions=512)
    (tmp_path / "texts").mkdir()
    for number in range(8):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"{number} {TEXT[0]}" * 2)
    corpus = Corpus(source=str(tmp_path / "texts"), test_fraction=0.7)
    shared = {"num_samples": 4, "ngram_lengths": (1, 2)}
    tokens = {**shared, "context_length": 64, "first_position": 16, "position_stride": 16, "max_windows": 2}
    words = {**shared, "first_position": 16, "context_bytes": 32, "max_positions": 1}
    arguments = {"pretrained": str(folder), "device": "cpu"}
    results = run("hf", {"brierlm": tokens, "brierlm_words": words}, corpus, model_args=arguments, limit=4)
    json.dumps(results["results"])
    noted = {name: results["configs"][name]["metadata"] for name in ("brierlm", "brierlm_words")}
    for name, metadata in noted.items():
        assert metadata["protocol_hash"]
        assert metadata["num_samples"] == 4
        assert metadata["num_positions"] == results["results"][name]["num_positions,none"] >= 4
    assert noted["brierlm"]["protocol_hash"] != noted["brierlm_words"]["protocol_hash"]
    assert noted["brierlm"]["protocol"]["tokenizer_digest"] not in ("", "unknown")

    documents = held_out_documents(corpus)[:4]
    protocol = TextProtocol.model_validate(noted["brierlm_words"]["protocol"])
    opened = HuggingFaceSampler.open(folder)
    assert opened.tokenizer is not None
    ours = evaluate_text_brierlm(TokenTextSampler(opened, opened.tokenizer), documents, protocol)
    scores = results["results"]["brierlm_words"]
    assert ours.protocol_hash == noted["brierlm_words"]["protocol_hash"]
    assert [scores[f"brier_{n},none"] for n in (1, 2)] == list(ours.brier)
    assert scores["brierlm_stderr,none"] == ours.brierlm_se


def test_a_model_that_shows_text_only(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"{number} " + "word " * 40 + TEXT[0])
    corpus = Corpus(source=str(tmp_path / "texts"), test_fraction=0.8)
    results = run(TextOnly(), {"brierlm_words": {}}, corpus)
    # It always says the same, which is right at three positions of five: 2 P(y) - 1 is 1 there, -1 elsewhere.
    assert results["results"]["brierlm_words"]["brier_4,none"] == pytest.approx(0.2)
    with pytest.raises(EvaluationError, match="TextOnly shows text but no tokens: use the task brierlm_words"):
        run(TextOnly(), {"brierlm": {}}, corpus)


class FourAtATime(MarkovSampler):
    chunk_size = 4


class Chunks(TextOnly):
    token_sampler = (FourAtATime(MarkovLanguage(MARKOV)), ByteTokenizer())


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"position_stride 6 .* not a multiple of the model's chunk size 4"):
        run(Chunks(), {"brierlm": {**TOKENS, "position_stride": 6}}, CORPUS)
    with pytest.raises(EvaluationError, match="0 positions in 0 stretches of text are too few"):
        run(Known(), {"brierlm": {"context_length": 128, "first_position": 64}}, CORPUS, limit=3)
    with pytest.raises(EvaluationError, match="0 positions in 0 stretches"):
        run(Known(), {"brierlm_words": {}}, CORPUS, limit=3)


def test_the_shipped_files_are_valid() -> None:
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False)
    loaded = manager.load(["brierlm", "brierlm_words"])["tasks"]
    assert [loaded[name].VERSION for name in ("brierlm", "brierlm_words")] == [1.0, 1.0]
    assert len(loaded["brierlm"].eval_docs) > 50
    assert loaded["brierlm"].eval_docs == loaded["brierlm_words"].eval_docs
