"""A cache of one shape, against the backbone's pass over the whole text; and its step as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.fx import GraphModule

from calm_bench.config import LanguageModel
from calm_bench.lm import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model

VOCAB_SIZE, STEPS, READ = 11, 9, 4


def model(key_value_heads: int = 2, kind: str = "token") -> ChunkLanguageModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 4}
    settings = {**sizes, "kind": kind, "chunk_size": 1 if kind == "token" else 2}
    config = LanguageModel.model_validate({**settings, "num_key_value_heads": key_value_heads, "rms_norm_eps": 1e-2})
    return build_language_model(config, VOCAB_SIZE, None, seed=0).eval()


def texts(network: ChunkLanguageModel, rows: int = 3) -> Tensor:
    """Long [R, STEPS, K]."""
    size = (rows, STEPS, network.chunk_size)
    return torch.randint(VOCAB_SIZE, size, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("first", [READ, 1])
@pytest.mark.parametrize("kind", ["token", "patch"])
@torch.no_grad()
def test_steps_give_the_hidden_states_of_the_whole_text(key_value_heads: int, first: int, kind: str) -> None:
    network = model(key_value_heads, kind)
    chunks = texts(network)
    expected = network.hidden_states(chunks.flatten(1))
    cache = network.new_cache(room=STEPS)
    found = [network.read(chunks[:, :first].flatten(1), torch.arange(first), cache)]
    for step in range(first, STEPS):
        found.append(network.read(chunks[:, step], torch.full((3, 1), step), cache))
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_nothing_looks_at_padding_and_kept_rows_go_on() -> None:
    network, padding = model(), [0, 3, 1]
    chunks, start = texts(network), torch.tensor([padding]).T
    own = [network.hidden_states(row[pad:].flatten()[None])[0] for row, pad in zip(chunks, padding, strict=True)]
    index = torch.arange(READ)
    cache = network.new_cache(room=STEPS + 5)
    network.read(chunks[:, :READ].flatten(1), (index - start).clamp_min(0), cache, index >= start)
    kept = [2, 1]
    for step in range(READ, STEPS):
        if step == READ + 2:
            cache.keep(torch.tensor(kept))
        rows = [0, 1, 2] if step < READ + 2 else kept
        found = network.read(chunks[rows, step], step - start[rows], cache)[:, 0]
        expected = torch.stack([own[row][step - padding[row]] for row in rows])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_step_too_many_is_an_error() -> None:
    network = model()
    chunks, cache = texts(network), network.new_cache(room=READ)
    network.read(chunks[:, :READ].flatten(1), torch.arange(READ), cache)
    with pytest.raises(IndexError):
        network.read(chunks[:, READ], torch.full((3, 1), READ), cache)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("kind", ["token", "patch"])
@torch.no_grad()
def test_a_step_is_one_graph_at_every_position(kind: str) -> None:
    network = model(kind=kind)
    chunks, cache = texts(network), network.new_cache(room=STEPS)
    graphs: list[GraphModule] = []

    def kept(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    following = torch.full((3, 1), READ)

    def step(tokens: Tensor) -> Tensor:
        hidden = network.read(tokens, following, cache)
        following.add_(1)
        return hidden

    network.read(chunks[:, :READ].flatten(1), torch.arange(READ), cache)
    traced = torch.compile(step, backend=kept, fullgraph=True, dynamic=False)
    found = [traced(chunks[:, place]) for place in range(READ, STEPS)]
    assert len(graphs) == 1, "another graph for another position"
    expected = network.hidden_states(chunks.flatten(1))[:, READ:]
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-5, rtol=1e-5)
