"""The alarm for trainings that stand still: when it sounds, when it stays silent, and that it survives a resumption."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from calm_bench.config import Training
from calm_bench.training.loop import Loop
from calm_bench.training.plateau import MIN_POINTS, PlateauAlarm
from calm_bench.training.task import Interrupted, TrainingTask

UNCONDITIONAL = 10.0
POINTS = 40


def alarms(fidelity: list[float], diversity: list[float], alarm: PlateauAlarm | None = None) -> list[bool | None]:
    alarm = alarm or PlateauAlarm(total_steps=10 * POINTS, log_every=10, warmup_steps=0)
    terms = zip(fidelity, diversity, strict=True)
    return [
        alarm.note(10 * index, {"fidelity": f, "diversity": d, "unconditional": UNCONDITIONAL})
        for index, (f, d) in enumerate(terms, start=1)
    ]


def test_it_sounds_when_both_terms_stay_level_and_high_and_counts_the_steps() -> None:
    noise = torch.randn(POINTS, 2, generator=Generator().manual_seed(0)) * 0.01
    alarm = PlateauAlarm(10 * POINTS, log_every=10, warmup_steps=0)
    told = alarms((20 + noise[:, 0]).tolist(), (10 + noise[:, 1]).tolist(), alarm)
    assert told == [False] * (MIN_POINTS - 1) + [True] * (POINTS - MIN_POINTS + 1)
    assert alarm.steps == 10 * (POINTS - MIN_POINTS + 1)


@pytest.mark.parametrize(
    ("fidelity", "diversity", "is_on"),
    [
        (19.0, 9.5, False),  # level, but 5 % better than any head that ignores its context: converged
        (19.9, 9.95, True),
        (12.0, 4.0, True),  # level and below that score, but diversity is a third of fidelity: noise ignored
        (12.0, 6.0, False),
    ],
)
def test_level_is_a_failure_only_where_the_level_is_bad(fidelity: float, diversity: float, is_on: bool) -> None:
    assert alarms([fidelity] * POINTS, [diversity] * POINTS)[-1] is is_on


@pytest.mark.parametrize(
    ("fidelity_change", "diversity_change"),
    [(-0.05, 0.0), (0.05, 0.05), (0.0, 0.05), (-0.008, 0.008)],  # the last: each nearly level, but the loss falls
)
def test_it_is_silent_while_a_term_moves_or_the_loss_falls(fidelity_change: float, diversity_change: float) -> None:
    """Changes over one window of ten points, as shares of fidelity."""
    ramp = [index / (MIN_POINTS - 1) for index in range(MIN_POINTS)]
    fidelity = [30 * (1 + fidelity_change * x) for x in ramp]
    diversity = [15 + 30 * diversity_change * x for x in ramp]
    assert alarms(fidelity, diversity)[-1] is False


def test_it_goes_off_when_learning_begins() -> None:
    told = alarms([20.0] * 20 + [20 * math.exp(-0.02 * n) for n in range(20)], [10.0] * 40)
    assert told[19] is True
    assert told[-1] is False


def test_the_warm_up_is_not_judged_and_long_trainings_look_back_further() -> None:
    warm = PlateauAlarm(10 * POINTS, log_every=10, warmup_steps=200)
    assert alarms([20.0] * POINTS, [10.0] * POINTS, warm).index(True) == 20 + MIN_POINTS - 1
    long = PlateauAlarm(total_steps=10 * 300, log_every=10, warmup_steps=0)
    assert alarms([20.0] * POINTS, [10.0] * POINTS, long).index(True) == 30 - 1


def test_other_losses_are_not_judged() -> None:
    assert PlateauAlarm(100, 10, 0).note(10, {"loss": 1.0, "cross_entropy": 1.0}) is None


def test_its_state_is_json_and_goes_on_where_it_was() -> None:
    values = [20.0 + 0.3 * math.sin(n) for n in range(POINTS)]
    whole = PlateauAlarm(10 * POINTS, 10, 0)
    expected = alarms(values, [10.0] * POINTS, whole)
    first, second = PlateauAlarm(10 * POINTS, 10, 0), PlateauAlarm(10 * POINTS, 10, 0)
    alarms(values[:17], [10.0] * 17, first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = [
        second.note(10 * (n + 1), {"fidelity": values[n], "diversity": 10.0, "unconditional": UNCONDITIONAL})
        for n in range(17, POINTS)
    ]
    assert rest == expected[17:]
    assert second.steps == whole.steps


class Zeros:
    """Batches without content."""

    def take(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), 8, dtype=torch.long)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def loop(folder, stop) -> Loop:  # type: ignore[no-untyped-def]
    """A training that learns nothing, on a loss that has an energy score's terms."""
    module = nn.Linear(2, 1)

    def loss(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        diversity = 0 * module(torch.ones(2)).sum() + 10
        terms = {"fidelity": 2 * diversity, "diversity": diversity, "unconditional": torch.tensor(UNCONDITIONAL)}
        return diversity, {name: term.detach() for name, term in terms.items()}

    config = Training(num_steps=30, batch_size=1, sequence_length=8, log_every=2, warmup_steps=0, checkpoint_every=7)
    task = TrainingTask(
        module,
        loss,
        loss,
        torch.zeros(1, 8, dtype=torch.long),
        1.0,
        {"all": [name for name, _ in module.named_parameters()]},
    )
    return Loop(task, Zeros(), config, folder, 0, "cpu", stop)


def test_a_training_tells_in_its_metrics_and_its_summary_also_when_interrupted(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name, checks in (("whole", None), ("cut", 23)):
        if checks is not None:
            left = iter(range(checks))
            with pytest.raises(Interrupted):
                loop(tmp_path / name, lambda left=left: next(left, None) is None).run()
        summary = loop(tmp_path / name, lambda: False).run()
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        plateau = [line["metrics"]["plateau"] for line in lines if line["split"] == "train"]
        assert plateau == [0.0] * 9 + [1.0] * 6
        assert summary.plateau_steps == 12
        assert all(line["metrics"]["grad_norm_all"] == 0 for line in lines if line["split"] == "train")
