"""Attention inside documents by FlexAttention, where a GPU trains with compiled layers: what masks of SDPA give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.attention import flex_attention as flex

from calm_bench.config import LanguageModel
from calm_bench.lm import document_blocks
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.document_blocks import BLOCK, block_mask, inside_blocks
from calm_bench.lm.documents import document_starts, inside_documents
from calm_bench.lm.folder import build_language_model
from calm_bench.regions import compiling
from tests.gpu.pretended_gpu import GPU, DevicesMixed, PretendedGpu
from tests.gpu.small_models import FAMILY_KINDS, VOCAB_SIZE, autoencoder, settings_of

STEPS, HEAD, LAYERS = 300, 16, 2
SIZES = {"hidden_size": 4 * HEAD, "num_layers": LAYERS, "document_masking": True}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def starts_of(steps: int, share: float, seed: int = 0, rows: int = 3) -> Tensor:
    """Of texts in which a ``share`` of the steps begins a document."""
    return document_starts(torch.rand(rows, steps, generator=Generator().manual_seed(seed)) < share)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 7])
def test_blocks_are_those_that_torch_finds_in_the_mask(steps: int, share: float) -> None:
    starts = starts_of(steps, share)
    found = block_mask(starts)

    def seen(row: Tensor, head: Tensor, step: Tensor, other: Tensor) -> Tensor:
        return (other <= step) & (other >= starts[row, step])

    expected = flex.create_block_mask(seen, len(starts), None, steps, steps, device="cpu", BLOCK_SIZE=BLOCK)
    assert found.shape == expected.shape
    assert found.BLOCK_SIZE == expected.BLOCK_SIZE
    for kind in ("kv", "full_kv", "q", "full_q"):
        for name in (f"{kind}_num_blocks", f"{kind}_indices"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


def test_blocks_of_other_documents_are_left_out() -> None:
    starts = document_starts((torch.arange(8 * BLOCK) % (2 * BLOCK) == 0)[None])
    mask = block_mask(starts)
    # Of a document of two blocks: its first block by itself, its second by both; of 64 blocks, 12 are met at all.
    assert (mask.kv_num_blocks + mask.full_kv_num_blocks).tolist() == [[[1, 2] * 4]]
    assert mask.full_kv_num_blocks.tolist() == [[[0, 1] * 4]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_layers_of_all_texts_share_a_graph_and_give_what_sdpa_gives() -> None:
    backbone = model_of("token").backbone
    graphs: Counter[str] = Counter()

    def counted(graph: Any, inputs: Any) -> Any:
        graphs[str(graph.graph)] += 1
        return graph.forward

    for seed in range(3):
        starts = starts_of(STEPS, 0.01, seed)
        inputs = torch.randn(len(starts), STEPS, 4 * HEAD, generator=Generator().manual_seed(seed))
        positions = torch.arange(STEPS) - starts
        expected = backbone(inputs, positions, repeat(inside_documents(starts, HEAD)))
        with compiling(counted):
            found = backbone(inputs, positions, repeat(inside_blocks(starts)))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert graphs.total() == 1


def model_of(kind: str, **changed: Any) -> ChunkLanguageModel:
    config = LanguageModel.model_validate(settings_of(kind) | SIZES | changed)
    inner = autoencoder(config.chunk_size) if config.needs_autoencoder else None
    return build_language_model(config, VOCAB_SIZE, inner, 0, document_end=0)


def documents(model: ChunkLanguageModel, steps: int = STEPS) -> Tensor:
    """Tokens of a few documents each."""
    tokens = torch.randint(1, VOCAB_SIZE, (2, steps * model.chunk_size), generator=Generator().manual_seed(1))
    return tokens.masked_fill(torch.rand(tokens.shape, generator=Generator().manual_seed(2)) < 0.01, 0)


class Counted:
    """How often masks of blocks are made, and attended by."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.masks = self.attentions = 0
        make, attend = document_blocks.block_mask, flex.flex_attention

        def made(starts: Tensor) -> flex.BlockMask:
            self.masks += 1
            return make(starts)

        def attended(*arguments: Any, **named: Any) -> Any:
            self.attentions += 1
            return attend(*arguments, **named)

        patch.setattr(document_blocks, "block_mask", made)
        patch.setattr(document_blocks, "flex_attention", attended)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def lossed(model: ChunkLanguageModel, tokens: Tensor, device: str) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and its gradients; what is compiled on a GPU runs as it is, and so does FlexAttention, both ways."""
    model.zero_grad()
    with compiling("inductor" if device == GPU else None), torch.compiler.set_stance("force_eager"):
        loss = model.loss(tokens.to(device), torch.Generator(device).manual_seed(0))[0]
        loss.backward()
    gradients = [parameter.grad for _, parameter in model.trainable_parameters()]
    return loss.detach(), [None if each is None else each.clone() for each in gradients]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", [*FAMILY_KINDS, "energy"])
def test_a_gpu_gives_the_loss_and_the_gradients_of_masks(gpu: PretendedGpu, counted: Counted, kind: str) -> None:
    model = model_of(kind)
    tokens = documents(model)
    loss, gradients = lossed(model, tokens, "cpu")
    assert not counted.masks
    found, given = lossed(model.to(GPU), tokens, GPU)
    assert (counted.masks, counted.attentions) == (1, LAYERS)
    torch.testing.assert_close(found.cpu(), loss, rtol=1e-5, atol=1e-5)
    for one, other in zip(given, gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_pass_forth_and_back_waits_for_nothing(gpu: PretendedGpu, counted: Counted) -> None:
    model = model_of("token").to(GPU)
    tokens = documents(model).to(GPU)
    gpu.waits.clear()
    lossed(model, tokens, GPU)
    assert counted.masks == 1
    assert not gpu.waits


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_blocks_of_the_cpu_are_refused_on_a_gpu(gpu: PretendedGpu) -> None:
    attention = inside_blocks(starts_of(STEPS, 0.01))
    query, key = (torch.randn(3, STEPS, heads, HEAD, device=GPU) for heads in (4, 2))
    with pytest.raises((DevicesMixed, RuntimeError), match="device"), torch.compiler.set_stance("force_eager"):
        attention(query, key, key)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_under_autocast_it_is_done_in_bf16_as_sdpa_is() -> None:
    starts = starts_of(STEPS, 0.01)
    query, key = (torch.randn(3, STEPS, heads, HEAD, generator=Generator().manual_seed(0)) for heads in (4, 2))
    value = key.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        expected = inside_documents(starts, HEAD)(query, key, value)
        found = inside_blocks(starts)(query, key, value)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("backend", "steps", "heads"),
    [(None, STEPS, 4), ("inductor", BLOCK, 4), ("inductor", STEPS, 8)],
    ids=["as it is", "a text of one block", "heads too small for its kernels"],
)
def test_elsewhere_a_gpu_has_masks(
    gpu: PretendedGpu, counted: Counted, backend: str | None, steps: int, heads: int
) -> None:
    model = model_of("token", num_attention_heads=heads).to(GPU)
    with compiling(backend), torch.compiler.set_stance("force_eager"):
        model.loss(documents(model, steps).to(GPU))[0].backward()
    assert counted.masks == counted.attentions == 0


def test_a_cpu_has_masks_though_compiled(counted: Counted) -> None:
    model = model_of("token")
    with compiling("inductor"), torch.compiler.set_stance("force_eager"):
        model.loss(documents(model))[0].backward()
    assert counted.masks == counted.attentions == 0
