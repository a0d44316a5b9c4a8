"""Attention inside documents: nothing of a document reaches the next one, whoever reads it and however."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.documents import document_starts, read_apart, seen_inside
from calm_bench.lm.folder import build_language_model, load_language_model
from calm_bench.regions import compiling
from calm_bench.sampling.continuations import sample_continuations
from calm_bench.sampling.reader import Reader
from calm_bench.sampling.traces import trace_continuations

V, END = 13, 12
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "token": {"kind": "token"},
    "calm": {"kind": "calm", "chunk_size": 3},
    "calm that reads the chunk before": {"kind": "calm", "chunk_size": 3},
    "patch": {"kind": "patch", "chunk_size": 3},
    "multi_token": {"kind": "multi_token", "chunk_size": 3},
    "block_diffusion": {"kind": "block_diffusion", "chunk_size": 3},
}


def model_of(family: str, masks: bool = True, **settings: Any) -> ChunkLanguageModel:
    described = {**SIZES, "num_key_value_heads": 2, "document_masking": masks, **FAMILIES[family], **settings}
    config = LanguageModel.model_validate(described)
    inner = None
    if config.needs_autoencoder:
        context = int("before" in family)
        sizes = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=8, context_chunks=context)
        torch.manual_seed(1)
        inner = Autoencoder(sizes, config.chunk_size, V)
    return build_language_model(config, V, inner, 0, END)


def text(rows: int, length: int, seed: int = 0) -> Tensor:
    """Tokens that end no document."""
    return torch.randint(END, (rows, length), generator=Generator().manual_seed(seed))


def with_ends(tokens: Tensor, *places: int) -> Tensor:
    tokens = tokens.clone()
    tokens[:, list(places)] = END
    return tokens


def test_what_stands_before_a_chunks_last_end_is_read_as_ends() -> None:
    tokens = torch.tensor([[1, 2, 3, 4, END, 5, END, 6, END, 7, END, END]])
    apart, begins = read_apart(tokens, 3, END)
    assert apart.tolist() == [[1, 2, 3, END, END, 5, END, END, END, END, END, END]]
    assert begins.tolist() == [[False, True, True, True]]
    assert read_apart(tokens, 1, END)[0].equal(tokens)


def test_documents_are_blocks_on_the_diagonal() -> None:
    starts = document_starts(torch.tensor([[False, False, True, False, True], [True, False, False, False, False]]))
    assert starts.tolist() == [[0, 0, 2, 2, 4], [0, 0, 0, 0, 0]]
    seen = seen_inside(starts)
    assert seen[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert seen[1].equal(torch.ones(5, 5).tril().bool())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_document_does_not_know_the_one_before(family: str) -> None:
    model = model_of(family).eval()
    size = model.chunk_size
    # The end stands in the middle of the fourth chunk.
    place = 3 * size + size // 2
    one, other = with_ends(text(1, 8 * size), place), with_ends(text(1, 8 * size), place)
    other[:, :place] = text(1, place, seed=1)
    assert not one.equal(other)
    before, after = model.hidden_states(one), model.hidden_states(other)
    torch.testing.assert_close(after[:, 3:], before[:, 3:], rtol=0, atol=0)
    assert not torch.allclose(after[:, :3], before[:, :3])
    # It is read as it would be alone.
    alone = model.hidden_states(read_apart(one, size, END).tokens[:, 3 * size :])
    torch.testing.assert_close(before[:, 3:], alone)
    whole = model_of(family, masks=False).eval()
    assert not torch.allclose(whole.hidden_states(one)[:, 4:], whole.hidden_states(other)[:, 4:])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_reaches_the_document_before(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)
    size = model.chunk_size
    tokens = with_ends(text(2, 6 * size), 2 * size + size // 2)
    inputs: list[Tensor] = []
    embed = model.embed

    def noted(ids: Tensor) -> Tensor:
        inputs.append(embed(ids).detach().requires_grad_())
        return inputs[-1]

    monkeypatch.setattr(model, "embed", noted)
    hidden = model.hidden_states(tokens)[..., : model.config.hidden_size]
    hidden[:, 2:].square().sum().backward()
    gradient = inputs[0].grad
    assert gradient is not None
    assert gradient[:, :2].abs().max() == 0
    assert gradient[:, 2].abs().max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_end_nothing_changes(family: str) -> None:
    masked, whole = model_of(family), model_of(family, masks=False)
    tokens = text(3, 6 * masked.chunk_size)
    losses = [model.loss(tokens, Generator().manual_seed(5))[0] for model in (masked, whole)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_read_bit_by_bit_it_is_the_same(family: str) -> None:
    model = model_of(family).eval()
    size = model.chunk_size
    tokens = with_ends(text(2, 8 * size), 2 * size, 5 * size + size // 2, 5 * size + size - 1)
    texts = [tokens[0].tolist(), tokens[1, 3 * size :].tolist()]
    expected = [model.hidden_states(torch.tensor([own]))[0] for own in texts]
    read = 4
    reader = Reader(model, [own[: len(own) - read * size] for own in texts])
    for chunk in range(read + 1):
        for row, own in enumerate(expected):
            torch.testing.assert_close(reader.hidden[row], own[len(own) - read - 1 + chunk], atol=1e-5, rtol=1e-5)
        if chunk < read:
            begin = 8 * size - (read - chunk) * size
            reader.read(tokens[:, begin : begin + size])
            if chunk == 1:
                reader.keep([1, 0])
                reader.keep([1, 0])


@torch.no_grad()
def test_a_cache_of_fixed_room_is_not_asked_of_masks_without_a_shape() -> None:
    model = model_of("token").eval()
    tokens = with_ends(text(1, 6), 3)
    caches = model.new_cache(), model.new_cache(room=6)
    for chunk in range(6):
        step, position = tokens[:, chunk : chunk + 1], torch.tensor([[chunk]])
        grown, fixed = (model.read(step, position, cache) for cache in caches)
        torch.testing.assert_close(grown, fixed, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_continuations_see_their_own_document(family: str) -> None:
    """Continuations that are read in a tree are what each of them is, read with its text from the beginning."""
    model = model_of(family).eval()
    size = model.chunk_size
    windows = with_ends(text(2, 6 * size), 3 * size + size // 2)
    nodes = model.read_text(windows).nodes()
    window, prefix = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 5, 4, 6])
    # Of four continuations two end a document on the way, in different steps.
    drawn = text(4, 4 * size, seed=9)
    drawn[1, size // 2] = END
    drawn[2, 2 * size + size - 1] = END
    for depth in range(4):
        chunks = drawn[:, depth * size : (depth + 1) * size]
        hidden = model.descend(nodes, torch.arange(4), chunks, window, prefix)
        for row in range(4):
            own = windows[window[row], : prefix[row] * size]
            whole = torch.cat([own, drawn[row, : (depth + 1) * size]])
            expected = model.hidden_states(whole[None])[0, -1]
            torch.testing.assert_close(hidden[row], expected, atol=1e-5, rtol=1e-5)


def generators(count: int) -> Sequence[Generator]:
    return [Generator().manual_seed(number) for number in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_samples_do_not_know_the_document_before(family: str) -> None:
    model = model_of(family).eval()
    size = model.chunk_size
    place = 2 * size + size // 2
    one, other = with_ends(text(2, 6 * size), place), with_ends(text(2, 6 * size), place)
    other[:, :place] = text(2, place, seed=1)
    positions = [3 * size, 5 * size]
    drawn = [sample_continuations(model, each, positions, 3, 2 * size, generators(2)) for each in (one, other)]
    assert drawn[0].equal(drawn[1])
    if family in ("token", "patch", "multi_token"):
        traces = [trace_continuations(model, each, positions[:1], 3, 2 * size, generators(2)) for each in (one, other)]  # type: ignore[arg-type]
        torch.testing.assert_close(traces[0].target, traces[1].target)
        assert traces[0].tokens.equal(traces[1].tokens)


@pytest.mark.parametrize("family", ["token", "calm that reads the chunk before"])
@torch.no_grad()
def test_a_folder_keeps_it(family: str, tmp_path: Path) -> None:
    model = model_of(family).eval()
    model.save(tmp_path / "masked")
    loaded = load_language_model(tmp_path / "masked")
    tokens = with_ends(text(1, 6 * model.chunk_size), 2 * model.chunk_size)
    assert loaded.document_end == END
    assert loaded.hidden_states(tokens).equal(model.hidden_states(tokens))
    model_of(family, masks=False).save(tmp_path / "whole")
    assert "document" not in (tmp_path / "whole" / "config.json").read_text()


def test_it_needs_to_know_the_end() -> None:
    config = LanguageModel.model_validate({**SIZES, "kind": "token", "document_masking": True})
    with pytest.raises(ValueError, match="needs to know which token ends a document"):
        build_language_model(config, V, None, 0)
    assert "document_masking" not in LanguageModel().model_dump(mode="json")


@pytest.mark.parametrize("recomputes", [False, True])
def test_layers_are_compiled_once_for_all_masks(recomputes: bool) -> None:
    model = model_of("token")
    model.backbone.recomputes = recomputes
    torch.compiler.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    for place in (3, 7, 11):
        tokens = with_ends(text(2, 16), place)
        with compiling(backend):
            compiled = model.loss(tokens)[0]
        compiled.backward()
        torch.testing.assert_close(compiled, model.loss(tokens)[0])
        if place == 3:
            first = len(graphs)
    assert len(graphs) == first
