"""The pretended GPU refuses what a GPU refuses, counts what it is waited for, and computes as a CPU does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from calm_bench.blockwise import cross_entropy
from calm_bench.row_noise import RowNoise, Rows, draw
from calm_bench.seeding import generator
from tests.gpu.pretended_gpu import GPU, DevicesMixed, PretendedGpu


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) + x,
        lambda x: torch.cat([x, torch.ones(1)]),
        lambda x: torch.stack([x.sum(), torch.ones(())]),
        lambda x: x.gather(0, torch.tensor([1])),
        lambda x: x.index_select(0, torch.arange(2)),
        lambda x: functional.embedding(torch.arange(2), x.view(3, 1)),
        lambda x: functional.linear(torch.ones(1, 3), x.view(1, 3)),
        lambda x: torch.ones(3).add_(x.sum()),
        lambda x: x.add_(torch.ones(3)),
        lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
        lambda x: x.numpy(),
        lambda x: x.pin_memory(),
        lambda x: torch.rand(3, device=x.device, generator=Generator()),
        lambda x: x.uniform_(generator=Generator()),
        lambda x: torch.rand(3, generator=generator(0, device=GPU)),
        lambda x: draw(torch.rand, (3,), 0, RowNoise(Rows(0, 1, 2), lambda own: own), x.device),
        lambda x: nn.Linear(3, 1)(x),
    ],
)
def test_devices_are_not_mixed(gpu: PretendedGpu, mistake: Callable[[Tensor], object]) -> None:
    there = torch.tensor([1.0, -1.0, 2.0], device=GPU)
    with pytest.raises(DevicesMixed):
        mistake(there)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: float(x.sum()),
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 1], device=x.device)),
        # An index that is a number on the device becomes one on the CPU.
        lambda x: x[torch.full((), 1, device=x.device)],
        lambda x: x[torch.arange(2)],
        lambda x: x[[0, 1]],
        lambda x: torch.equal(x, x),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.ones(3).to(x.device),
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.empty(3).copy_(x, non_blocking=True),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_waits_are_counted(gpu: PretendedGpu, mistake: Callable[[Tensor], object]) -> None:
    there = torch.zeros(3, device=GPU)
    mistake(there)
    assert gpu.waits.total() >= 1
    assert all("tests/" not in where for where in gpu.waits), "named by a line of the project"


def test_what_needs_no_wait_is_not_counted(gpu: PretendedGpu) -> None:
    there = torch.arange(3.0, device="cuda")
    for made in (
        there * 2.0 + torch.tensor(1.0),
        there[torch.arange(2, device=GPU)],
        there.masked_fill(there > 1, 0.0),
        there.repeat_interleave(2),
        torch.full((2,), 3.0, device=there.device),
        there.new_zeros(2),
        torch.zeros_like(there),
        torch.ones(3).pin_memory().to(GPU, non_blocking=True),
        torch.rand(2, generator=generator(0, device=GPU), device=GPU),
    ):
        assert made.device == torch.device(GPU)
        assert made.is_cuda
    there[1:] = 0.0
    torch.empty(3, pin_memory=True).copy_(there, non_blocking=True)
    assert torch.zeros_like(there, device="cpu").device.type == "cpu"
    assert not gpu.waits


def test_a_step_on_it_is_a_step_on_the_cpu(gpu: PretendedGpu) -> None:
    def step(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for index in range(2):
            rows = torch.tensor([1, 2, 4]).to(device)
            cross_entropy(model(rows), model[0].weight, rows).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1 + index)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return list(model.parameters())

    there, here = step("cuda"), step("cpu")
    assert all(gpu.holds(parameter) for parameter in there)
    assert not any(gpu.holds(parameter) for parameter in here)
    for one, other in zip(there, here, strict=True):
        assert torch.equal(one.detach().cpu(), other.detach())


def test_autocast_is_that_of_the_gpu(gpu: PretendedGpu) -> None:
    linear, there = nn.Linear(3, 1).to(GPU), torch.ones(1, 3, device=GPU)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert linear(there).dtype == torch.bfloat16
        assert torch.is_autocast_enabled("cuda")
        with torch.autocast("cuda", enabled=False):
            assert linear(there).dtype == torch.float32
    assert not torch.is_autocast_enabled("cuda")
