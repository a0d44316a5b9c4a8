"""Micro-batches of a step and of a validation: whose rows are read, how many at once, and the mean over all windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from calm_bench.config import Training
from calm_bench.row_noise import draw
from calm_bench.training.loop import Loop
from calm_bench.training.task import TrainingTask
from calm_bench.training.workers import Share, SingleProcess, whole_shares


class NoBatches:
    def take(self, rows: Tensor) -> Tensor:
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
    found = loop.scores()
    assert found == {
        "loss": pytest.approx(held_out.float().mean().item()),
        "square": pytest.approx(held_out.float().square().mean().item()),
    }
    assert [rows for rows, _ in seen] == [2] * (num_windows // 2) + [1] * (num_windows % 2)
    numbers = [number for _, number in seen]
    assert len(set(numbers)) == len(numbers), "every micro-batch has noise of its own"
    seen.clear()
    assert loop.scores() == found
    assert [number for _, number in seen] == numbers, "and the same every time"


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_no_more_windows_are_held_at_once_than_sequences_in_a_step(micro_batch: int, tmp_path: Path) -> None:
    """Pieces of a micro-batch, with its noise and its mean."""
    held_out = torch.arange(24.0).view(8, 3)
    seen: list[Tensor] = []

    def scores(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(draw(torch.rand, (len(tokens), 1), 0, noise, "cpu"))
        return tokens.mean() + seen[-1].mean(), {}

    config = Training(num_steps=9, batch_size=8, sequence_length=3, gradient_accumulation=2)
    task = TrainingTask(nn.Linear(1, 1), scores, scores, held_out, 1.0)
    whole = Loop(task, NoBatches(), config, tmp_path, 0, "cpu", lambda: False).scores()
    noise = torch.cat(seen)
    seen.clear()
    loop = Loop(task, NoBatches(), config, tmp_path, 0, "cpu", lambda: False, micro_batch=micro_batch)
    assert loop.scores() == {"loss": pytest.approx(whole["loss"])}
    assert max(map(len, seen)) <= micro_batch
    assert torch.equal(torch.cat(seen), noise)


class OneOfTwo(SingleProcess):
    """The second of two workers, who are dealt every other micro-batch."""

    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        return whole_shares(batch, parts)[1::2]


def test_a_worker_reads_its_own_rows_only(tmp_path: Path) -> None:
    asked, seen = [], []

    class Numbers(NoBatches):
        def take(self, rows: Tensor) -> Tensor:
            asked.append(rows.tolist())
            return 10 * rows.unsqueeze(1) + torch.arange(3)

    module = nn.Linear(3, 1)

    def loss(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(tokens[:, 0].tolist())
        return module(tokens.float()).mean(), {}

    config = Training(num_steps=9, batch_size=8, sequence_length=3, gradient_accumulation=4)
    task = TrainingTask(module, loss, loss, torch.zeros(1, 3), 1.0)
    loop = Loop(task, Numbers(), config, tmp_path, 0, "cpu", lambda: False)
    loop.workers = OneOfTwo()
    loop.train_step()
    assert asked == [[2, 3, 6, 7]]
    assert seen == [[20, 30], [60, 70]]
