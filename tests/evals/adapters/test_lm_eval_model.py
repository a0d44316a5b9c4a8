"""Any model of lm-eval by its text generation: plain sampling, independent draws, and refusals."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.model import LM, CachingLM

from evals.adapters.lm_eval_model import LmEvalTextSampler
from evals.adapters.lm_eval_requests import text_sampler_of, token_sampler_of
from evals.protocol import EvaluationError
from evals.text_brier import evaluate_text_brierlm, text_protocol_for
from evals.text_units import Bytes, Words
from tests.evals.tiny_models import save_tiny

WORDS = {"yes": 0.6, "né": 0.3, "no": 0.1}


class Chatter(LM):  # type: ignore[misc]
    """Independent words. Equal requests get one answer, as from a model behind a cache; ``_seed`` as of a server."""

    def __init__(self, num_words: int = 8) -> None:
        super().__init__()
        self.num_words, self.answers, self._seed = num_words, dict[str, str](), 1234
        self.settings: list[dict[str, Any]] = []

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.settings += [request.args[1] for request in requests]
        return [self.answers.setdefault(repr(request.args), self._answer(*request.args)) for request in requests]

    def _answer(self, context: str, settings: dict[str, Any]) -> str:
        source = random.Random(repr((context, self._seed)))
        return "".join(f" {word}" for word in source.choices(list(WORDS), list(WORDS.values()), k=self.num_words)) + " "

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise AssertionError("no likelihood is to be asked for")

    loglikelihood_rolling = loglikelihood


def texts(count: int) -> list[str]:
    source = random.Random(0)
    return [" ".join(source.choices(list(WORDS), list(WORDS.values()), k=40)) + "\n" for _ in range(count)]


def test_text_generation_scores_the_exact_value() -> None:
    documents = texts(30)
    protocol = text_protocol_for(documents, unit="words", position_stride=2, first_position=32)
    lm = Chatter()
    result = evaluate_text_brierlm(LmEvalTextSampler(lm), documents, protocol)
    exact = [sum(p * p for p in WORDS.values()) ** n for n in (1, 2, 3, 4)]
    assert np.abs((np.array(result.brier) - exact) / result.brier_se).max() < 3.5
    asked = lm.settings[0]
    assert {name: asked[name] for name in ("do_sample", "temperature", "top_k", "top_p")} == {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
    }  # fmt: skip
    assert lm._seed == 1234
    # Too few words in the answer are missing words.
    short = evaluate_text_brierlm(LmEvalTextSampler(Chatter(2)), documents, protocol)
    assert short.brier[1] > 0.1 > -0.1 > short.brier[2]


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(save_tiny(tmp_path_factory.mktemp("gpt2"))), device="cpu", batch_size=64)


def test_samples_are_independent_also_behind_a_cache(hf: Any, tmp_path: Path) -> None:
    contexts, seeds = ["the quick brown", "over the"], [1, 2]
    state = torch.random.get_rng_state()
    drawn = LmEvalTextSampler(hf).sample_text(contexts, 3, Bytes(), 4, seeds)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(len(set(own)) == 3 for own in drawn)
    assert drawn == LmEvalTextSampler(hf).sample_text(contexts, 3, Bytes(), 4, seeds)
    assert drawn != LmEvalTextSampler(hf).sample_text(contexts, 3, Bytes(), 4, [3, 4])
    cached = CachingLM(hf, str(tmp_path / "cache.db"))
    for _ in range(2):
        again = LmEvalTextSampler(cached).sample_text(contexts[:1], 3, Bytes(), 4, seeds[:1])
        assert len(set(again[0])) == 3


def test_generated_text_follows_the_model(hf: Any) -> None:
    """First bytes of continuations, by text generation and by the network's own probabilities."""
    sampler, _ = token_sampler_of(hf)
    exact = text_sampler_of(hf).sample_text(["the quick brown"], 400, Bytes(), 1, [0])[0]
    text = LmEvalTextSampler(hf).sample_text(["the quick brown"] * 40, 10, Bytes(), 1, list(range(40)))
    ours, theirs = (np.bincount([t[0] if t[0] < 128 else 0 for t in part if t], minlength=128) for part in
                    (exact, [t for own in text for t in own]))  # fmt: skip
    likely = ours + theirs > 20
    assert likely.sum() >= 2
    assert (np.abs(ours - theirs)[likely] < 4.5 * np.sqrt((ours + theirs)[likely])).all()
    assert sampler.vocab_size == 270


class Silent(Chatter):
    def generate_until(self, requests: list[Any]) -> list[Any]:
        return [None for _ in requests]


def test_what_cannot_be_asked_is_refused(hf: Any) -> None:
    with pytest.raises(EvaluationError, match="cannot continue an empty context: set first_position to 1"):
        LmEvalTextSampler(Chatter()).sample_text(["a", ""], 2, Words(), 2, [0, 1])
    with pytest.raises(EvaluationError, match=r"Silent\.generate_until did not return one text"):
        LmEvalTextSampler(Silent()).sample_text(["a"], 2, Words(), 2, [0])
    with pytest.raises(EvaluationError, match="Chatter shows text but no tokens: use the task brierlm_words"):
        token_sampler_of(Chatter())
