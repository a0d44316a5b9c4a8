"""Steps by joined and laid out weights, against the plain backbone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from calm_bench.config import LanguageModel
from calm_bench.lm import TokenModel, fused
from calm_bench.lm.backbone import Backbone, Layer
from calm_bench.lm.cache import Cache
from calm_bench.lm.fused import FEWEST_ROWS, FEWEST_STEPS, FusedBackbone, fused_backbone, laid_out
from calm_bench.sampling.generate import generate_batch

ENOUGH, ONE = (FEWEST_ROWS, FEWEST_STEPS), (1, 1)
SIZES = {"wide": (96, 257, 4, 4), "grouped": (64, 172, 4, 2), "odd": (100, 130, 5, 5)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As stages and commands compute; several threads share rows out, and few rows have other kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def backbone(hidden: int = 64, inner: int = 96, heads: int = 4, groups: int = 4) -> Backbone:
    torch.manual_seed(1)
    network = Backbone(11, hidden, inner, 2, heads, groups, 500.0, 1e-5)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return network.eval()


def steps(network: Backbone | FusedBackbone, rows: int, counts: list[int], width: int) -> Tensor:
    """Hidden states of texts that are read ``counts`` steps at a time, from positions that differ by row."""
    cache, generator, place = Cache(len(network.layers)), Generator().manual_seed(2), 0
    found = []
    for count in counts:
        inputs = torch.randn(rows, count, width, generator=generator)
        positions = torch.arange(place, place + count) + torch.arange(rows)[:, None]
        found.append(network(inputs, positions, cache.attentions(count)))
        place += count
    return torch.cat(found, dim=1)


def products_keep_their_bits() -> bool:
    """Whether this machine's products do not depend on how a weight lies nor on what it is joined with."""
    rows, weights = torch.randn(FEWEST_ROWS, 96), torch.randn(2, 64, 96)
    apart = torch.cat([functional.linear(rows, weight) for weight in weights], dim=1)
    joined = weights.flatten(0, 1)
    return all(torch.equal(apart, functional.linear(rows, weight)) for weight in (joined, laid_out(joined)))


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 4, 17])
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_hidden_states_are_those_of_the_plain_backbone_to_the_bit(size: str, rows: int, by_columns: bool) -> None:
    network = backbone(*SIZES[size])
    faster = fused_backbone(network, *(ENOUGH if by_columns else ONE))
    assert faster is not None
    counts = [5, 1, 1, 2, 1]
    expected, found = (steps(each, rows, counts, SIZES[size][0]) for each in (network, faster))
    torch.testing.assert_close(found, expected)
    if products_keep_their_bits():
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_what_an_input_carries_goes_past_the_layers() -> None:
    network = backbone()
    faster = fused_backbone(network, *ENOUGH)
    assert faster is not None
    inputs = torch.randn(5, 3, 64 + 7)
    found = faster(inputs, torch.arange(3), Cache(2).attentions(3))
    torch.testing.assert_close(found, network(inputs))
    assert torch.equal(found[..., 64:], inputs[..., 64:])


def weight_of(network: FusedBackbone | None) -> Tensor:
    assert network is not None
    return network.layers[0].down


def lies_by_columns(network: FusedBackbone | None) -> bool:
    return not weight_of(network).is_contiguous()


def test_weights_are_laid_out_for_many_steps_of_some_rows_and_of_no_large_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = backbone()
    assert lies_by_columns(fused_backbone(network, *ENOUGH))
    assert not lies_by_columns(fused_backbone(network, *ONE))
    assert not lies_by_columns(fused_backbone(network, FEWEST_ROWS - 1, 100))
    assert not lies_by_columns(fused_backbone(network, 100, FEWEST_STEPS - 1))
    own = network.layers[0].get_submodule("mlp.down_proj").get_parameter("weight")
    assert weight_of(fused_backbone(network, *ONE)).data_ptr() == own.data_ptr()  # no copy
    torch.set_num_threads(2)
    assert not lies_by_columns(fused_backbone(network, *ENOUGH))
    torch.set_num_threads(1)
    monkeypatch.setattr(fused, "MAX_BYTES", 1000)
    assert not lies_by_columns(fused_backbone(network, *ENOUGH))


class OtherLayer(Layer):
    """Computes something else, perhaps."""


def test_others_read_by_the_plain_backbone() -> None:
    assert fused_backbone(backbone(32, 48, 4, 1), *ENOUGH) is None  # keys of 8 numbers
    assert fused_backbone(backbone(38, 48, 1, 1), *ENOUGH) is None  # no multiple of 4
    assert fused_backbone(backbone().to(torch.bfloat16), *ENOUGH) is None
    assert fused_backbone(torch.nn.Identity(), *ENOUGH) is None
    other = backbone()
    other.layers[1].__class__ = OtherLayer
    assert fused_backbone(other, *ENOUGH) is None


def test_weights_that_change_between_generations_are_heeded() -> None:
    config = LanguageModel(kind="token", hidden_size=32, intermediate_size=48, num_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    network = TokenModel(config, 11).eval()

    def texts() -> list[list[int]]:
        generators = [Generator().manual_seed(row) for row in range(5)]
        return [found.tokens for found in generate_batch(network, [[1, 2]] * 5, 12, generators, eos_id=10)]

    before = texts()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    after = texts()
    assert after != before
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.div_(1.5)
    assert texts() == before
