"""The model of a GPU's kernels counts what is computed, and fuses what a compiler could."""

from __future__ import annotations

import pytest
import torch
from torch import Generator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from calm_bench.flops import training_flops
from tests.gpu.paper_sizes import VOCAB_SIZE, as_on_a_gpu, built, experiment, tokens_of
from tests.gpu.roofline import BANDWIDTH, LAUNCH_S, LEAST_S, OF_BANDWIDTH, OF_PRODUCTS, PEAK, Roofline


def test_a_product_takes_its_flops_and_what_follows_its_bytes() -> None:
    size = 8192
    with FakeTensorMode(), Roofline() as roofline:
        x = torch.empty((size, size), dtype=torch.bfloat16)
        y = (x @ x).float()
        (functional.silu(y) * 2.0).add_(1.0)
        del y
        roofline.end_run()
    product = 2 * size**3 / (OF_PRODUCTS * PEAK)
    passes = BANDWIDTH * OF_BANDWIDTH / size**2
    # Read in two bytes a number and written in four, then read and written in four, three times.
    assert roofline.eager.count == 5
    assert roofline.eager.flops == 2 * size**3
    assert roofline.eager.seconds == pytest.approx(product + (6 + 3 * 8) / passes)
    # All of these but the product are one kernel that reads the product's result; nobody is left to use its own.
    assert roofline.compiled.count == 2
    assert roofline.compiled.seconds == pytest.approx(product + 2 / passes)


def test_small_kernels_take_as_long_as_their_launch() -> None:
    with FakeTensorMode(), Roofline() as roofline:
        x = torch.empty(4)
        for _ in range(10):
            x = x + 1
    assert roofline.eager.seconds == pytest.approx(10 * LEAST_S)
    assert roofline.eager.wall == pytest.approx(10 * LAUNCH_S)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize(("kind", "sequences"), [("energy", 2), ("token", 4)])
def test_the_flops_of_a_training_are_those_of_the_closed_form(kind: str, sequences: int) -> None:
    """But for the attention, of which causality leaves half, and for what is not counted there: targets of heads."""
    described = experiment("paper-m", kind)
    with as_on_a_gpu(), FakeTensorMode():
        tokens = tokens_of(described, kind, sequences)
        loss, _ = built(described, kind)
        with torch.autocast("cpu", dtype=torch.bfloat16), Roofline() as roofline:
            loss(tokens, Generator())[0].backward()
            roofline.end_run()
    model = described.model
    sizes = described.autoencoder if model.needs_autoencoder else None
    expected = training_flops(model, sizes, VOCAB_SIZE, 2048)
    attention = expected.parts["attention"]
    # Five products in the backward pass where two times two are counted.
    wanted = tokens.numel() * (expected.total - attention + attention * 3.5 / 3 / 2)
    assert roofline.eager.flops == pytest.approx(wanted, rel=0.02)
    assert roofline.compiled.count < roofline.eager.count / 2
    assert roofline.compiled.flops == roofline.eager.flops
    assert 0.1 < tokens.numel() * expected.total / roofline.eager.wall / PEAK < 0.7
