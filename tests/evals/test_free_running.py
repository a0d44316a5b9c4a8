"""Repetition and diversity by hand, their errors, and a judge against the model's own loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from evals.free_running import free_running_statistics
from evals.judge import judge_texts
from evals.protocol import EvaluationError
from tests.evals.tiny_models import save_tiny


def test_by_hand() -> None:
    found = free_running_statistics([[1, 2, 1, 2], [3, 3, 3]])
    values = {name: figure.value for name, figure in found.items()}
    assert values["distinct_1"] == pytest.approx(3 / 7)
    assert values["distinct_2"] == pytest.approx(3 / 5), "12, 21 and 33 of five"
    assert values["repeated_1"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert values["repeated_2"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert values["repeated_4"] == 0.0, "the second text has no 4-gram"
    assert values["entropy_1"] == pytest.approx(-sum(p * math.log2(p) for p in (2 / 7, 2 / 7, 3 / 7)))
    assert all(figure.standard_error is None for figure in found.values()), "of two texts"


def test_text_in_circles_and_text_that_varies_are_told_apart() -> None:
    chance = np.random.default_rng(0)
    varied = [chance.integers(0, 200, 160).tolist() for _ in range(6)]
    circles = [[*range(8)] * 20 for _ in range(6)]
    ours, theirs = free_running_statistics(circles), free_running_statistics(varied)
    assert ours["repeated_4"].value > 0.9 > 0.1 > theirs["repeated_4"].value
    assert ours["distinct_2"].value < 0.01 < 0.9 < theirs["distinct_2"].value
    assert ours["entropy_1"].value == pytest.approx(3.0)
    assert ours["entropy_1"].standard_error == pytest.approx(0.0)


def test_the_error_is_that_of_other_texts() -> None:
    chance = np.random.default_rng(1)
    drawn = [
        free_running_statistics([chance.integers(0, 30, 40).tolist() for _ in range(12)])["repeated_1"]
        for _ in range(200)
    ]
    spread = float(np.std([figure.value for figure in drawn], ddof=1))
    told = float(np.mean([figure.standard_error for figure in drawn if figure.standard_error is not None]))
    assert told == pytest.approx(spread, rel=0.2)


def test_no_texts_say_nothing() -> None:
    assert free_running_statistics([]) == {}
    assert free_running_statistics([[], []]) == {}
    assert set(free_running_statistics([[5]])) == {"distinct_1", "repeated_1", "entropy_1"}


def test_a_judge_gives_the_likelihood_that_its_model_has(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny(tmp_path / "judge")
    pairs = [("the quick", " brown fox"), ("the lazy", " dog jumps"), ("over", " the quick fox")]
    found = judge_texts(folder, pairs)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    nats, count = 0.0, 0
    for prompt, text in pairs:
        before, written = tokenizer(prompt)["input_ids"], tokenizer(text)["input_ids"]
        labels = torch.tensor([[-100] * len(before) + written])
        with torch.no_grad():
            nats += float(model(torch.tensor([before + written]), labels=labels).loss) * len(written)
        count += len(written)
    assert (found.num_tokens, found.num_texts) == (count, 3)
    assert found.log_perplexity == pytest.approx(nats / count, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found.log_perplexity_se is not None


def test_a_judge_with_few_positions_reads_the_end_of_the_prompt_or_says_so(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "judge", positions=8)
    assert judge_texts(folder, [("the quick brown fox jumps over" * 4, " fox")]).num_texts == 1
    with pytest.raises(EvaluationError, match=r"8 positions: lower samples\.num_tokens"):
        judge_texts(folder, [("the", "the quick brown fox jumps over" * 4)])
    with pytest.raises(EvaluationError, match="no text to judge"):
        judge_texts(folder, [("the", "")])
