"""A moving average of the weights: what is validated and saved, whatever ends the training on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from calm_bench.config import Training
from calm_bench.training.optim import build_optimizer
from calm_bench.training.weight_average import WeightAverage
from tests.calm_bench.training.test_resume import CUTS
from tests.calm_bench.training.tiny_trainings import TRAINED, Trainings, cut, metrics, state

AVERAGED = {"weight_average": 0.9}


def test_it_is_the_sum_over_steps_that_its_decay_says() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = build_optimizer([("weight", weight)], Training(num_steps=1, learning_rate=0.1))
    average = WeightAverage(optimizer, [weight], 0.5)
    seen: list[Tensor] = []
    for step in (1, 2, 3):
        weight.grad = torch.tensor([1.0, -2.0])
        optimizer.step()
        average.note(step)
        seen.append(weight.detach().clone())
    # Decay 2/11 at the second step, 3/12 at the third: below 0.5 both.
    second = 2 / 11 * seen[0] + 9 / 11 * seen[1]
    with average.shown():
        torch.testing.assert_close(weight.detach(), 0.25 * second + 0.75 * seen[2])
    assert torch.equal(weight.detach(), seen[2])


@pytest.mark.parametrize("what", TRAINED)
def test_a_training_that_ends_on_the_way_keeps_its_average(what: str, trainings: Trainings, tmp_path: Path) -> None:
    """Among them a head with a parameter that never has a gradient."""
    for how, step in CUTS:
        cut(trainings.of(what, **AVERAGED), tmp_path, how, step)
    trainings.assert_ends_like_the_undisturbed(tmp_path, what, **AVERAGED)


def test_the_steps_are_those_of_a_training_without_one_and_the_model_is_another(trainings: Trainings) -> None:
    (plain, last), (averaged, smooth) = trainings.undisturbed("token"), trainings.undisturbed("token", **AVERAGED)
    for name, tensor in state(last)[0].items():
        assert torch.equal(tensor, state(smooth)[0][name])
    assert [line for line in metrics(last) if line["split"] == "train"] == [
        line for line in metrics(smooth) if line["split"] == "train"
    ]
    saved = [load_file(folder / "model" / "model.safetensors") for folder in (last, smooth)]
    assert not torch.equal(saved[0]["lm_head.weight"], saved[1]["lm_head.weight"])
    assert plain["validation"]["loss"] != averaged["validation"]["loss"]


def test_what_is_saved_is_what_was_validated_last(trainings: Trainings) -> None:
    result, folder = trainings.undisturbed("token", **AVERAGED)
    kept, names = state(folder)[0], [f"optimizer.{index}.weight_average" for index in range(2)]
    assert all(name in kept for name in names)
    saved = load_file(folder / "model" / "model.safetensors")
    averages = [tensor for name, tensor in kept.items() if name.endswith("weight_average")]
    for name, tensor in saved.items():
        assert any(tensor.shape == other.shape and torch.equal(tensor, other) for other in averages), name
    assert metrics(folder)[-1]["metrics"]["loss"] == result["validation"]["loss"]
