"""Validation in micro-batches: no more rows at once than a step has, and the mean over all windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from calm_bench.config import Training
from calm_bench.training.loop import Loop
from calm_bench.training.task import TrainingTask


class NoBatches:
    def __next__(self) -> Tensor:
        raise AssertionError("nothing is trained here")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("num_windows", [8, 7, 2, 1])
def test_windows_are_read_in_micro_batches_and_count_alike(num_windows: int, tmp_path: Path) -> None:
    held_out = torch.arange(num_windows * 3).view(num_windows, 3)
    seen = []

    def scores(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert not torch.is_grad_enabled()
        seen.append((len(tokens), torch.rand(1, generator=noise).item()))
        return tokens.float().mean(), {"square": tokens.float().square().mean()}

    config = Training(num_steps=9, batch_size=8, sequence_length=3, gradient_accumulation=4)
    task = TrainingTask(nn.Linear(1, 1), scores, scores, held_out, 1.0)
    loop = Loop(task, NoBatches(), config, tmp_path, 0, "cpu", lambda: False)
    found = loop._scores()
    assert found == {
        "loss": pytest.approx(held_out.float().mean().item()),
        "square": pytest.approx(held_out.float().square().mean().item()),
    }
    assert [rows for rows, _ in seen] == [2] * (num_windows // 2) + [1] * (num_windows % 2)
    numbers = [number for _, number in seen]
    assert len(set(numbers)) == len(numbers), "every micro-batch has noise of its own"
    seen.clear()
    assert loop._scores() == found
    assert [number for _, number in seen] == numbers, "and the same every time"
