"""The closed forms against the paper's table, against the modules, and against torch's own count of a real pass."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from calm_bench.autoencoder import Autoencoder as AutoencoderModule
from calm_bench.autoencoder.loss import autoencoder_loss
from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.flops import (
    CostBreakdown,
    autoencoder_parameter_count,
    autoencoder_training_flops,
    inference_flops,
    parameter_count,
    training_flops,
)
from calm_bench.head_config import EnergyHead
from calm_bench.lm.calm import Calm
from calm_bench.lm.token import TokenModel

VOCABULARY = 128256
CONTEXT_STEPS = 2048
TRAINING_TOKENS = 250_000 * 2.0e6
PAPER_AUTOENCODER = Autoencoder(latent_size=128, hidden_size=512, intermediate_size=1280)

SMALL_AUTOENCODER = Autoencoder(
    latent_size=12, hidden_size=40, intermediate_size=88, num_encoder_layers=2, num_decoder_layers=4
)


def paper_model(kind: str, hidden_size: int, intermediate_size: int, num_layers: int) -> LanguageModel:
    return LanguageModel.model_validate(
        {
            "kind": kind,
            "chunk_size": 4 if kind == "calm" else 1,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_layers": num_layers,
            "num_attention_heads": 16,
            "head": {"num_blocks": num_layers // 4},
        }
    )


def small_model(chunk_size: int, **changes: object) -> LanguageModel:
    head = EnergyHead(width=56, num_blocks=3, noise_size=20, num_samples=5, num_targets=7)
    sizes = {"hidden_size": 48, "intermediate_size": 112, "num_layers": 2, "num_attention_heads": 4}
    return LanguageModel.model_validate({"chunk_size": chunk_size, "head": head, **sizes, **changes})


@pytest.mark.parametrize(
    ("kind", "sizes", "parameters", "training", "inference", "tolerance"),
    [
        ("token", (768, 2048, 12), 281e6, 6.6e20, 4.4e8, 0.01),
        ("token", (1024, 2752, 16), 465e6, 11.9e20, 7.9e8, 0.04),
        ("calm", (1024, 2752, 16), 371e6, 3.7e20, 2.9e8, 0.01),
        ("calm", (1536, 4096, 16), 735e6, 7.7e20, 4.6e8, 0.04),
    ],
    ids=["Transformer-S", "Transformer-M", "CALM-M", "CALM-L"],
)
def test_paper_table(
    kind: str, sizes: tuple[int, int, int], parameters: float, training: float, inference: float, tolerance: float
) -> None:
    model = paper_model(kind, *sizes)
    trained = training_flops(model, PAPER_AUTOENCODER, VOCABULARY, CONTEXT_STEPS, "paper").total * TRAINING_TOKENS
    assert trained == pytest.approx(training, rel=tolerance)
    generated = inference_flops(model, PAPER_AUTOENCODER, VOCABULARY, CONTEXT_STEPS, "paper").total
    assert generated == pytest.approx(inference, rel=tolerance)
    assert parameter_count(model, PAPER_AUTOENCODER, VOCABULARY).total == pytest.approx(parameters, rel=0.01)


def test_paper_autoencoder() -> None:
    assert autoencoder_parameter_count(PAPER_AUTOENCODER, 4, VOCABULARY).total == pytest.approx(75e6, rel=0.02)
    # 6.7e18 is 6 FLOPs per parameter and token; blocks that run once a chunk make it a little less.
    assert autoencoder_training_flops(PAPER_AUTOENCODER, 4, VOCABULARY).total * 15e9 == pytest.approx(6.7e18, rel=0.05)


def test_shares_named_in_the_paper() -> None:
    model = paper_model("calm", 1024, 2752, 16)
    inference = inference_flops(model, PAPER_AUTOENCODER, VOCABULARY, CONTEXT_STEPS, "paper")
    decoder = inference.parts["logits"] + inference.parts["autoencoder_decoder"]
    assert decoder / inference.total == pytest.approx(0.47, abs=0.02)
    training = training_flops(model, PAPER_AUTOENCODER, VOCABULARY, CONTEXT_STEPS)
    assert training.parts["autoencoder_encoder"] / training.total == pytest.approx(0.007, abs=0.001)


def test_hoisting_what_the_noise_does_not_change_saves_a_sixth_of_the_head() -> None:
    model = paper_model("calm", 1024, 2752, 16)
    full, hoisted = (
        training_flops(model, PAPER_AUTOENCODER, VOCABULARY, CONTEXT_STEPS, accounting).parts["head"]
        for accounting in ("paper", "implementation")
    )
    blocks = model.head.num_blocks
    saved_by_hand = 3 * 2 * 1024**2 * blocks * 7 / 4
    assert full - hoisted == pytest.approx(saved_by_hand)
    assert 0.1 < 1 - hoisted / full < 0.2


@pytest.mark.parametrize("model", [small_model(4), small_model(2, num_key_value_heads=2), small_model(1, head={})])
def test_parameters_of_chunk_models_are_exact(model: LanguageModel) -> None:
    autoencoder = AutoencoderModule(SMALL_AUTOENCODER, model.chunk_size, 257)
    counted = sum(parameter.numel() for parameter in autoencoder.parameters())
    assert autoencoder_parameter_count(SMALL_AUTOENCODER, model.chunk_size, 257).total == counted
    built = Calm(model, autoencoder)
    trained = sum(parameter.numel() for _, parameter in built.trainable_parameters())
    assert parameter_count(model, SMALL_AUTOENCODER, 257).total == trained


def test_parameters_of_the_token_model_are_exact() -> None:
    model = small_model(1, kind="token", num_key_value_heads=1)
    trained = sum(parameter.numel() for parameter in TokenModel(model, 257).parameters())
    assert parameter_count(model, None, 257).total == trained


def in_place(total: torch.Size, first: torch.Size, second: torch.Size, **_: Any) -> int:
    return int(addmm_flop(total, first, second))


def counted_flops(run: Callable[[], object]) -> int:
    """Matrix products that torch really executes, 2 FLOPs per multiply-add; attention counted in full.

    On a CPU the fused attention kernel is not counted, so attention runs in its plain form, as two matrix products.
    """
    # torch counts addmm, and not the same product added in place.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def test_token_model_training_costs_what_torch_counts() -> None:
    model, length = small_model(1, kind="token"), 33
    module = TokenModel(model, 257)
    tokens = torch.randint(0, 257, (2, length))
    steps = length - 1
    expected = training_flops(model, None, 257, steps).total * 2 * steps
    assert counted_flops(lambda: module.loss(tokens)[0].backward()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunk_model_training_costs_what_torch_counts(chunk_size: int) -> None:
    model, steps = small_model(chunk_size), 32
    module = Calm(model, AutoencoderModule(SMALL_AUTOENCODER, chunk_size, 257))
    tokens = torch.randint(0, 257, (2, (steps + 1) * chunk_size))
    expected = training_flops(model, SMALL_AUTOENCODER, 257, steps).total * 2 * steps * chunk_size
    assert counted_flops(lambda: module.loss(tokens, torch.Generator())[0].backward()) == pytest.approx(
        expected, rel=0.02
    )


def test_chunk_model_sampling_costs_what_torch_counts() -> None:
    model = small_model(4)
    module = Calm(model, AutoencoderModule(SMALL_AUTOENCODER, 4, 257)).eval()
    hidden = torch.randn(6, model.hidden_size)
    parts = inference_flops(model, SMALL_AUTOENCODER, 257, 32).parts
    expected = (parts["head"] + parts["autoencoder_decoder"] + parts["logits"]) * 6 * 4
    with torch.no_grad():
        assert counted_flops(lambda: module.draw(hidden, 1, torch.Generator())) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("context_chunks", [0, 1])
def test_autoencoder_training_costs_what_torch_counts(context_chunks: int) -> None:
    config = SMALL_AUTOENCODER.model_copy(update={"context_chunks": context_chunks})
    module = AutoencoderModule(config, 4, 257)
    tokens = torch.randint(0, 257, (2, 5, 4))
    normal = torch.randn(2, 5, config.latent_size)

    def step() -> Tensor:
        loss, _ = autoencoder_loss(module, tokens, torch.rand(2, 5, 4), normal, torch.rand_like(normal))
        loss.backward()
        return loss

    assert autoencoder_parameter_count(config, 4, 257).total == sum(p.numel() for p in module.parameters())
    expected = autoencoder_training_flops(config, 4, 257).total * 10 * 4
    assert counted_flops(step) == pytest.approx(expected, rel=0.01)


def test_a_breakdown_is_scaled_by_part_and_cannot_be_changed() -> None:
    breakdown = CostBreakdown({"backbone": 2.0, "head": 1.0, "logits": 0.0})
    assert dict(breakdown.times(10).parts) == {"backbone": 20.0, "head": 10.0}
    assert breakdown.total == 3.0
    with pytest.raises(TypeError):
        breakdown.parts["backbone"] = 5.0  # type: ignore[index]


def test_a_chunk_model_has_no_price_without_its_autoencoder() -> None:
    with pytest.raises(ValueError, match="without its autoencoder"):
        training_flops(LanguageModel(), None, 257, 64)


def test_pricing_needs_no_torch() -> None:
    script = "import calm_bench.flops, calm_bench.overrides, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
