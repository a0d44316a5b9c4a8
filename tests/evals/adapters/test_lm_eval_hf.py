"""A model of transformers with few positions is asked tasks: its prompts are read first."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evals.adapters.lm_eval_hf import PromptFirstHFLM
from evals.protocol import EvaluationError
from tests.evals.tiny_models import save_tiny

QUESTION = {"until": ["\n\n"]}


def asked(kind: str, *arguments: tuple[object, ...]) -> list[Instance]:
    return [Instance(kind, {}, own, 0) for own in arguments]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), positions=64)


def opened(folder: Path, kind: type[HFLM] = PromptFirstHFLM, **settings: int) -> HFLM:
    return kind(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2, **settings)


def test_prompts_reach_a_model_of_few_positions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    lm = opened(folder)
    read: list[list[int]] = []
    lm.model.register_forward_pre_hook(lambda _, __, given: read.extend(given["input_ids"].tolist()), with_kwargs=True)
    prompts = [f"{letter}? " * 10 for letter in "xyz"] + ["w" * 100]
    with caplog.at_level(logging.WARNING, "evals"):
        answers = lm.generate_until(asked("generate_until", *((prompt, QUESTION) for prompt in prompts)))
    assert len(answers) == 4
    for prompt in prompts[:3]:
        whole = lm.tok_encode(prompt)
        assert any(row[-len(whole) :] == whole for row in read), "all of it"
    assert lm.shortened == {"w" * 100}
    assert max(map(len, read)) <= 64
    assert [record.message for record in caplog.records if record.name.startswith("evals")] == [
        "answers are shorter than the 256 tokens asked for (max_gen_toks) where the prompt leaves less of 64"
    ]


def test_what_fits_is_answered_as_ever(folder: Path) -> None:
    generated = asked("generate_until", ("the fox", {"max_gen_toks": 8}), ("jumps", {"max_new_tokens": 20}))
    scored = asked("loglikelihood", ("the fox", " jumps"), ("", "over"), ("the " * 10, "dog"))
    lm, plain = opened(folder), opened(folder, HFLM)
    assert lm.generate_until(generated) == plain.generate_until(generated)
    assert lm.loglikelihood(scored) == plain.loglikelihood(scored)
    assert lm.shortened == lm.bounded == set()


def test_contexts_that_lose_their_beginning_are_counted(folder: Path) -> None:
    lm = opened(folder, max_length=16)
    long = "the quick brown fox jumps over the lazy dog"
    ((value, _), _) = lm.loglikelihood(asked("loglikelihood", (long, " and"), ("the", " fox")))
    assert lm.shortened == {long}
    whole = lm.tok_encode(long + " and")
    with torch.no_grad():
        logits = lm.model(torch.tensor([whole[-17:-1]])).logits[0].log_softmax(-1)
    count = len(whole) - len(lm.tok_encode(long))
    expected = sum(float(logits[place, whole[len(whole) + place]]) for place in range(-count, 0))
    assert value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(EvaluationError, match="continuation of 100 tokens cannot be scored within 16 tokens"):
        lm.loglikelihood(asked("loglikelihood", ("the", "w" * 100)))


def test_what_the_length_decides_is_noted(folder: Path) -> None:
    lm, long = opened(folder, max_length=16), "the quick brown fox jumps over the lazy dog"
    lm.loglikelihood(asked("loglikelihood", ("the", " fox")))
    lm.loglikelihood_rolling(asked("loglikelihood_rolling", ("the fox",)))
    assert lm.bounded == set()
    lm.generate_until(asked("generate_until", ("a fox", {"max_gen_toks": 99})))
    lm.loglikelihood(asked("loglikelihood", (long, " and")))
    lm.loglikelihood_rolling(asked("loglikelihood_rolling", (f"{long}.",)))
    assert lm.bounded == {"a fox", long, f"{long}."}
