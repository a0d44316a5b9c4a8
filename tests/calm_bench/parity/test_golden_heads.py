"""Agreement of the diffusion and flow heads with the reference implementation, every random draw injected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calm_bench.heads.diffusion import DiffusionHead
from calm_bench.heads.flow import FlowHead
from calm_bench.heads.schedule import clipped_cosine, spaced_times, steps_through
from calm_bench.lm import Calm
from calm_bench.pretrained import load_released_calm
from calm_bench.weights import WeightsError
from tests.calm_bench.parity.reference_data import GOLDEN

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
NUM_SAMPLES = 8


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / name / "golden.safetensors")


def diffusion() -> tuple[dict[str, Tensor], Calm, DiffusionHead]:
    model = load_released_calm(GOLDEN / "diffusion_k4" / "model")
    assert isinstance(model.head, DiffusionHead)
    return golden("diffusion_k4"), model, model.head


def flow(**settings: object) -> tuple[dict[str, Tensor], Calm, FlowHead]:
    model = load_released_calm(GOLDEN / "flow_k4" / "model", head=settings)
    assert isinstance(model.head, FlowHead)
    return golden("flow_k4"), model, model.head


@pytest.mark.parametrize("name", ["diffusion_k4", "flow_k4"])
def test_backbone_and_targets(name: str) -> None:
    expected, model = golden(name), load_released_calm(GOLDEN / name / "model")
    tokens = expected["input_ids"]
    visible = tokens[:, : -model.chunk_size]
    torch.testing.assert_close(model.embed(visible), expected["inputs_embeds"], **TOLERANCE)
    torch.testing.assert_close(model.hidden_states(visible), expected["hidden_states"], **TOLERANCE)
    mean, log_std = model.autoencoder.encode(tokens[:, model.chunk_size :])
    torch.testing.assert_close(mean.flatten(0, 1), expected["target.mean"], **TOLERANCE)
    torch.testing.assert_close(log_std.flatten(0, 1), expected["target.log_std"], **TOLERANCE)


@pytest.mark.parametrize("name", ["diffusion_k4", "flow_k4"])
def test_network(name: str) -> None:
    expected, model = golden(name), load_released_calm(GOLDEN / name / "model")
    time = expected["net.t"]
    if isinstance(model.head, FlowHead):
        time = model.head.network_time(time)
    network = model.head.network
    assert isinstance(network, torch.nn.Module)
    torch.testing.assert_close(network(expected["net.x"], time, expected["net.c"]), expected["net.out"], **TOLERANCE)


def drawn(expected: dict[str, Tensor], model: Calm) -> tuple[Tensor, Tensor]:
    """Hidden states [P, d] and the recorded draws of the targets [N, P, Z]."""
    tokens = expected["input_ids"]
    hidden = model.hidden_states(tokens[:, : -model.chunk_size]).flatten(0, 1)
    mean, log_std = (part.flatten(0, 1) for part in model.autoencoder.encode(tokens[:, model.chunk_size :]))
    return hidden, mean + expected["train.eps"] * log_std.exp()


def test_diffusion_loss_and_gradients() -> None:
    expected, model, head = diffusion()
    hidden, data = drawn(expected, model)
    noise = expected["train.noise"].unflatten(0, (NUM_SAMPLES, -1))
    errors = head.errors(hidden, data, noise, expected["train.t"].unflatten(0, (NUM_SAMPLES, -1)))
    torch.testing.assert_close(data.flatten(0, 1), expected["train.x_start"], **TOLERANCE)
    torch.testing.assert_close(errors["denoising"].flatten(), expected["train.mse"], **TOLERANCE)
    torch.testing.assert_close(errors["variational"].flatten(), expected["train.vb"], **TOLERANCE)
    loss = sum(errors.values(), torch.zeros(())).mean()
    torch.testing.assert_close(loss, expected["train.loss_mean"], **TOLERANCE)
    loss.backward()
    assert_gradients(model, expected)


def test_flow_loss_and_gradients() -> None:
    expected, model, head = flow()
    hidden, data = drawn(expected, model)
    noise = expected["train.x0"].unflatten(0, (NUM_SAMPLES, -1))
    errors = head.squared_errors(hidden, data, noise, expected["train.t"].unflatten(0, (NUM_SAMPLES, -1)))
    torch.testing.assert_close(data.flatten(0, 1), expected["train.target"], **TOLERANCE)
    torch.testing.assert_close(errors.flatten(), expected["train.loss"], **TOLERANCE)
    torch.testing.assert_close(errors.mean(), expected["train.loss_mean"], **TOLERANCE)
    errors.mean().backward()
    assert_gradients(model, expected)


def assert_gradients(model: Calm, expected: dict[str, Tensor]) -> None:
    for ours, theirs in {
        "head.network.final.out_proj.weight": "generative_head.net.final_layer.linear.weight",
        "input_projection.0.weight": "embed_proj.0.weight",
    }.items():
        torch.testing.assert_close(model.get_parameter(ours).grad, expected[f"grad/{theirs}"], **TOLERANCE)
    here = sorted(float(p.grad.norm()) for p in model.parameters() if p.grad is not None)
    there = sorted(float(value) for key, value in expected.items() if key.startswith("grad_norm/"))
    assert here == pytest.approx(there, rel=1e-4, abs=1e-6)


def test_diffusion_schedule() -> None:
    expected = golden("diffusion_k4")
    alpha_bar = clipped_cosine()
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    torch.testing.assert_close(1 - alpha_bar / previous, expected["sched.betas1000"], rtol=1e-9, atol=1e-12)
    visited = spaced_times(999, 100)
    assert torch.equal(visited, expected["sched.timestep_map"])
    betas = steps_through(alpha_bar[visited]).log_beta.exp()
    torch.testing.assert_close(betas, expected["sched.betas100"].float(), rtol=1e-6, atol=0)


def test_single_diffusion_steps() -> None:
    expected, _, head = diffusion()
    index, x = expected["pstep.t"], expected["pstep.x_t"]
    at = steps_through(clipped_cosine()[head.visited]).at(index)
    output = head.network(x, head.visited[index], expected["pstep.z"])
    mean, log_variance = head.reverse_step(at, x, output)
    torch.testing.assert_close(log_variance, expected["pstep.log_variance"], **TOLERANCE)
    assert relative_error(mean, expected["pstep.mean"]) < 1e-5
    data = at.inverse_signal * x - at.noise_over_signal * output.chunk(2, dim=-1)[0]
    assert relative_error(data, expected["pstep.pred_xstart"]) < 1e-5


def test_diffusion_samples() -> None:
    """The reference's sampler; the last recorded noise is the one that it multiplies by zero."""
    expected, _, head = diffusion()
    noises = iter(expected["sample.noise"])
    with torch.no_grad():
        samples = head.reverse(expected["sample.z"], expected["sample.x_T"], lambda x: next(noises))
    assert len(list(noises)) == 1
    assert relative_error(samples, expected["sample.out"]) < 1e-5


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_beginning_where_there_is_signal_keeps_the_samples_of_a_noise_network_bounded(sampler: str) -> None:
    """Where the reference's own sampler gives values of about 1000 for data of about 1."""
    expected = golden("diffusion_k4")
    assert expected["sample.out"].abs().max() > 100
    model = load_released_calm(GOLDEN / "diffusion_k4" / "model", head={"start": 0.05, "sampler": sampler})
    with torch.no_grad():
        samples = model.head.sample(expected["sample.z"], 50, torch.Generator().manual_seed(0))
    assert samples.std() < 3 * expected["train.x_start"].std()


@pytest.mark.parametrize(("solver", "num_steps"), [("midpoint", 10), ("euler", 20)])
def test_flow_samples(solver: str, num_steps: int) -> None:
    expected, _, head = flow(solver=solver, num_steps=num_steps)
    with torch.no_grad():
        samples = head.integrate(expected["sample.z"], expected["sample.x0"])
    torch.testing.assert_close(samples, expected[f"sample.{solver}"], **TOLERANCE)


def test_an_unknown_head_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["GammaTransformer"]}')
    (tmp_path / "pytorch_model.bin").write_bytes((GOLDEN / "flow_k4" / "model" / "pytorch_model.bin").read_bytes())
    with pytest.raises(WeightsError, match="GammaTransformer; those that can be read are EnergyTransformer"):
        load_released_calm(tmp_path)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()
