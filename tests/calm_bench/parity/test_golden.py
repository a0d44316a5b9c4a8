"""Agreement with tensors computed by the reference implementation, every random draw injected."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calm_bench.autoencoder.loss import autoencoder_loss
from calm_bench.heads.energy import energy_terms
from calm_bench.lm import Calm
from calm_bench.pretrained import load_released_autoencoder, load_released_calm
from tests.calm_bench.parity.reference_data import GOLDEN

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / name / "golden.safetensors")


@pytest.mark.parametrize("name", ["autoencoder_k1", "autoencoder_k4"])
def test_autoencoder(name: str) -> None:
    expected, model = golden(name), load_released_autoencoder(GOLDEN / name)
    mean, log_std = model.encode(expected["input_ids"])
    torch.testing.assert_close(mean, expected["encoder.mean"], **TOLERANCE)
    torch.testing.assert_close(log_std, expected["encoder.log_std"], **TOLERANCE)
    logits = model.logits(expected["decoder.latents"]).flatten(1, 2)
    torch.testing.assert_close(logits, expected["decoder.logits"], **TOLERANCE)


@pytest.mark.parametrize("name", ["autoencoder_k1", "autoencoder_k4"])
def test_autoencoder_loss_and_gradients(name: str) -> None:
    expected, model = golden(name), load_released_autoencoder(GOLDEN / name)
    chunks = expected["input_ids"].reshape(-1, model.chunk_size)
    # The golden tensors give the keep mask of the latents; any uniforms on the right side of 0.15 make that mask.
    latent_uniform = expected["train.latent_keep"].squeeze(1) * 0.5 + 0.1
    loss, terms = autoencoder_loss(
        model, chunks, expected["train.token_rand"], expected["train.eps"].squeeze(1), latent_uniform
    )
    loss.backward()
    torch.testing.assert_close(loss, expected["train_fp32.loss"], **TOLERANCE)
    torch.testing.assert_close(terms["kl"], expected["train.kl"], **TOLERANCE)
    torch.testing.assert_close(terms["reconstruction"], expected["train.ce"], **TOLERANCE)
    for ours, theirs in {
        "encoder.embedding.weight": "encoder.embed_tokens.weight",
        "encoder.to_latent.weight": "encoder.hidden_to_latent.weight",
        "decoder.from_latent.weight": "decoder.latent_to_hidden.weight",
    }.items():
        gradient = model.get_parameter(ours).grad
        torch.testing.assert_close(gradient, expected[f"train_fp32.grad/{theirs}"], **TOLERANCE)
    ours_total = sorted(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)
    prefix = "train_fp32.grad_norm/"
    theirs_total = sorted(float(value) for key, value in expected.items() if key.startswith(prefix))
    assert ours_total == pytest.approx(theirs_total, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
def test_energy_model(name: str) -> None:
    expected, model = golden(name), load_released_calm(GOLDEN / name / "model")
    tokens = expected["input_ids"]
    visible = tokens[:, : -model.chunk_size]
    torch.testing.assert_close(model.embed(visible), expected["inputs_embeds"], **TOLERANCE)
    hidden = model.hidden_states(visible)
    torch.testing.assert_close(hidden, expected["hidden_states"], **TOLERANCE)
    mean, log_std = model.autoencoder.encode(tokens[:, model.chunk_size :])
    torch.testing.assert_close(mean.flatten(0, 1), expected["target.mean"], **TOLERANCE)
    torch.testing.assert_close(log_std.flatten(0, 1), expected["target.log_std"], **TOLERANCE)
    latents = model.head(hidden.flatten(0, 1), expected["head.rand"] - 0.5)
    torch.testing.assert_close(latents, expected["head.latents"], **TOLERANCE)


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
def test_energy_loss_and_gradients(name: str) -> None:
    expected, model = golden(name), load_released_calm(GOLDEN / name / "model")
    loss = injected_loss(model, expected)
    loss.backward()
    torch.testing.assert_close(loss, expected["energy.loss"], **TOLERANCE)
    ours = {
        "head.blocks.0.in_proj.weight": "mlp_generator.mlp_blocks.0.linears.0.weight",
        "head.final.out_proj.weight": "mlp_generator.final_layer.linears.2.weight",
        "input_projection.0.weight": "embed_proj.0.weight",
    }
    for name_here, name_there in ours.items():
        gradient = model.get_parameter(name_here).grad
        torch.testing.assert_close(gradient, expected[f"grad/{name_there}"], **TOLERANCE)
    here = sorted(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)
    there = sorted(float(value) for key, value in expected.items() if key.startswith("grad_norm/"))
    assert here == pytest.approx(there, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_energy_score(name: str, alpha: float) -> None:
    expected = golden(name)
    fidelity, diversity = energy_terms(
        expected["es.x"], expected["es.mean"], expected["es.log_std"], expected["es.eps"], alpha
    )
    torch.testing.assert_close(diversity - fidelity, expected[f"es.score_beta{alpha}"], **TOLERANCE)


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
def test_sampled_chunks(name: str) -> None:
    expected, model = golden(name), load_released_calm(GOLDEN / name / "model")
    noise = expected["ts.rand"].transpose(0, 1) - 0.5
    drawn = model.autoencoder.decode(model.head(expected["ts.hidden"], noise))
    assert torch.equal(drawn.transpose(0, 1), expected["ts.pool"])


def injected_loss(model: Calm, expected: dict[str, Tensor]) -> Tensor:
    tokens = expected["input_ids"]
    hidden = model.hidden_states(tokens[:, : -model.chunk_size]).flatten(0, 1)
    mean, log_std = (part.flatten(0, 1) for part in model.autoencoder.encode(tokens[:, model.chunk_size :]))
    samples = model.head(hidden, expected["head.rand"] - 0.5)
    fidelity, diversity = energy_terms(samples, mean, log_std, expected["energy.eps"], alpha=1.0)
    return (fidelity - diversity).mean()
