"""What ``auto`` is, and what a process multiplies in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch

from calm_bench.arithmetic import resolve_precision, training_arithmetic
from calm_bench.devices import set_tf32, uses_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("asked", "device", "meant"),
    [
        ("auto", "cpu", "fp32"),
        ("auto", "cuda", "bf16"),
        ("auto", "cuda:1", "bf16"),
        ("fp32", "cuda", "fp32"),
        ("bf16", "cpu", "bf16"),
    ],
)
def test_auto_is_what_the_device_is_good_at(asked: Literal["auto", "fp32", "bf16"], device: str, meant: str) -> None:
    assert resolve_precision(asked, device) == meant
    assert training_arithmetic(asked, device) == f"{meant} on {device.partition(':')[0]}"


def test_a_process_that_scores_on_a_gpu_multiplies_in_tf32_and_one_that_trains_does_not() -> None:
    set_tf32("cpu", True)
    assert not uses_tf32("cuda")
    set_tf32("cuda:0", True)
    assert uses_tf32("cuda")
    assert not uses_tf32("cpu")
    set_tf32("cuda", False)
    assert torch.get_float32_matmul_precision() == "highest"
