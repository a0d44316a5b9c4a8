"""What a plan says one of several workers takes that hold a part of a model each, against what its tensors take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Generator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from calm_bench.flops import layer_parameters, parameter_count
from calm_bench.lm.folder import build_language_model
from calm_bench.memory import frozen_parameters
from calm_bench.training.autoencoder import untrained
from calm_bench.training.distributed_group import DistributedGroup
from calm_bench.worker_memory import divided_memory
from tests.gpu.fake_memory import PeakBytes
from tests.gpu.paper_sizes import VOCAB_SIZE, as_on_a_gpu, experiment, planned
from tests.gpu.test_planned_memory import WITHIN

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Mismatch dtype")]

WORKERS = 8


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seven others that are never there, and a GPU's blocks."""
    dist.init_process_group("fake", rank=0, world_size=WORKERS, store=FakeStore())
    # Made here, since it reads numbers, which tensors without data do not have.
    mesh = init_device_mesh("cpu", (WORKERS,))
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda *ignored: mesh)
    with as_on_a_gpu():
        yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("preset", "kind", "sequences"),
    [
        ("paper-s", "token", 1),
        ("paper-m", "energy", 4),
        pytest.param("paper-xl", "energy", 1, marks=pytest.mark.extended),
    ],
)
def test_a_plan_is_near_what_a_worker_takes_that_holds_a_part_of_the_model(
    preset: str, kind: str, sequences: int
) -> None:
    described = experiment(preset, kind)
    model = described.model
    autoencoder = described.autoencoder if model.needs_autoencoder else None
    trained = parameter_count(model, autoencoder, VOCAB_SIZE).total
    frozen = frozen_parameters(model, autoencoder, VOCAB_SIZE)
    sizes = layer_parameters(model), model.num_layers
    whole = planned(described, kind, sequences)
    parts = divided_memory(whole, WORKERS, "fsdp", trained, frozen, "cuda", *sizes).parts.parts
    with FakeTensorMode(), PeakBytes(resized=True) as counted, torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = torch.zeros((sequences, model.training.sequence_length), dtype=torch.long)
        inner = untrained(described, VOCAB_SIZE) if autoencoder else None
        network = build_language_model(model, VOCAB_SIZE, inner, seed=0)
        group = DistributedGroup("fsdp")
        group.prepare(network, list(network.backbone.layers), False, "bf16")
        counted.peak = counted.held
        for _ in range(2):
            value, _ = group.call(network.loss, tokens, Generator())
            value.backward()
            del value
    found = counted.peak + parts["optimizer"] + parts["process"]
    print({k: round(v / 1e9, 2) for k, v in parts.items()}, sum(parts.values()) / 1e9, found / 1e9)
    assert sum(parts.values()) == pytest.approx(found, rel=WITHIN)
