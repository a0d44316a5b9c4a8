"""Every training loss can be compiled whole: one graph, no mask in its attention, the gradients of eager code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.functional import scaled_dot_product_attention

from tests.gpu.small_models import KINDS, case, tokens

# Tracing and its passes take a second or more for each kind.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(module: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: value for name, value in zip(trained, found, strict=True) if value is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_one_graph_for_one_shape_without_masks(kind: str) -> None:
    graphs: list[GraphModule] = []

    def kept(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    own = case(kind)
    batch = tokens(2)
    noise = own.noise(batch)
    expected = own.loss(batch, noise)
    traced = torch.compile(own.loss, backend=kept, fullgraph=True, dynamic=False)
    loss = traced(batch, noise)
    torch.testing.assert_close(loss, expected)
    wanted = gradients(own.module, expected)
    found = gradients(own.module, loss)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")
    traced(batch, noise)
    assert len(graphs) == 1, "another graph for the same shape"
    attentions = [node for node in graphs[0].graph.nodes if node.target is scaled_dot_product_attention]
    both_ways = 2 if kind == "block_diffusion" else 0
    causal = 0 if kind == "autoencoder" else 2
    assert [node.kwargs["is_causal"] for node in attentions] == [True] * causal + [False] * both_ways
    assert all(node.kwargs["attn_mask"] is None for node in attentions)
    traced(tokens(3), own.noise(tokens(3)))
    assert len(graphs) == 2
