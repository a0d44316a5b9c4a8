"""Regions of a network are compiled one by one where a GPU trains it, and compute what they compute as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Generator
from torch.fx import GraphModule

from calm_bench.arithmetic import training_arithmetic
from calm_bench.config import Training
from calm_bench.lm.backbone import Layer, causal, rotary_angles
from calm_bench.regions import VARIABLE, backend_for, compiling
from calm_bench.training.autoencoder import training_loss
from calm_bench.training.distributed_group import DistributedGroup
from calm_bench.training.loop import Loop
from calm_bench.training.task import Loss, TrainingTask
from tests.gpu.small_models import LANGUAGE_MODELS, LENGTH, autoencoder, language_model, tokens


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trained(kind: str) -> tuple[Any, Loss]:
    if kind == "autoencoder":
        model = autoencoder()
        return model, training_loss(model)
    language = language_model(kind)
    return language, language.loss


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoencoder", *LANGUAGE_MODELS])
def test_layers_share_a_graph_and_the_loss_and_its_gradients_stay(kind: str) -> None:
    graphs: Counter[str] = Counter()

    def counted(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        shapes = [tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor)]
        graphs[f"{graph.graph} of {shapes}"] += 1
        return graph.forward

    model, loss = trained(kind)
    expected = loss(tokens(2), Generator().manual_seed(0))[0]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    with compiling(counted):
        found = loss(tokens(2), Generator().manual_seed(0))[0]
        given = torch.autograd.grad(found, parameters, allow_unused=True)
        first = graphs.total()
        loss(tokens(2), Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert graphs.total() == first, "another graph for the same shapes"
    assert set(graphs.values()) == {1}, "two layers of one shape have a graph each"
    assert graphs, "nothing is compiled"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["token", "energy"])
def test_layers_that_are_computed_again_are_compiled_as_they_were(kind: str) -> None:
    """In the backward pass, which a GPU runs in a thread of its own, when nothing says any more what is compiled."""
    found: list[list[torch.Tensor]] = []
    for backend in (None, "aot_eager"):
        model = language_model(kind)
        model.backbone.recomputes = True
        with compiling(backend):
            loss = model.loss(tokens(2), Generator().manual_seed(0))[0]
        with ThreadPoolExecutor(1) as thread:
            thread.submit(loss.backward).result()
        found.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    plain, compiled = found
    for one, other in zip(compiled, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_layers_are_compiled_among_workers_as_they_are_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch by itself cuts the graph of a layer of a megabyte or more in two there."""
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    graphs, before = list[str](), torch._dynamo.config.optimize_ddp

    def counted(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(str(graph.graph))
        return graph.forward

    found = []
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for is_shared in (False, True):
            torch._dynamo.config.optimize_ddp = True
            assert backend_for("cpu") == "inductor"
            layer = Layer(256, 688, 4, 4, 1e-5)
            group = DistributedGroup("ddp")
            group.prepare(layer, [], skips_parameters=False)
            call: Any = group.call if is_shared else lambda function, *inputs: function(*inputs)
            angles = rotary_angles(torch.arange(3), 64, 1e4, torch.float32)
            graphs.clear()
            with compiling(counted):
                call(layer, torch.ones(1, 3, 256), *angles, causal)
            found.append(list(graphs))
    finally:
        torch._dynamo.config.optimize_ddp = before
        dist.destroy_process_group()
    assert found[0] == found[1]


NETWORK = {"Layer.forward", "GatedBlock.forward", "AdaLNBlock.forward", "AdaLNFinal.forward"}
ONE_STEP = {"Layer.forward", "GatedBlock.forward", "OneStepBlock.forward", "FinalLayer.forward"}
COMPILED = {
    "autoencoder": {"GatedBlock.forward", "_softmax"},
    "token": {"Layer.forward", "_softmax"},
    "patch": {"Layer.forward", "_softmax"},
    "block_diffusion": {"Layer.forward", "_softmax"},
    "multi_token": {"Layer.forward", "TokenHead.forward", "_softmax"},
    "energy": {*ONE_STEP, "energy_terms"},
    "drifting": ONE_STEP,
    **dict.fromkeys(("diffusion", "diffusion of the noise", "flow", "shortcut", "mean_flow"), NETWORK),
}


@pytest.mark.parametrize("kind", ["autoencoder", *LANGUAGE_MODELS])
def test_layers_blocks_of_heads_and_the_softmax_are_compiled(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()

    def compiled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        names.add(function.__qualname__)
        return function

    monkeypatch.setattr("calm_bench.regions.torch.compile", compiled)
    _, loss = trained(kind)
    with compiling(lambda graph, inputs: graph.forward):
        loss(tokens(2), Generator().manual_seed(0))
    assert names == COMPILED[kind]


class SameBatch:
    """The same tokens at every step."""

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return tokens(4)[rows]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def summary(folder: Path) -> Any:
    model, loss = trained("token")
    config = Training(num_steps=3, batch_size=4, sequence_length=LENGTH, gradient_accumulation=2, log_every=1)
    task = TrainingTask(model, loss, loss, tokens(2), 1.0)
    return Loop(task, SameBatch(), config, folder, 0, "cpu", lambda: False).run()


@pytest.mark.slow
def test_a_compiled_training_ends_at_the_same_loss_and_says_that_it_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    plain = summary(tmp_path / "plain")
    assert plain.arithmetic == "fp32 on cpu"
    monkeypatch.setattr("calm_bench.training.loop.backend_for", lambda device: "aot_eager")
    compiled = summary(tmp_path / "compiled")
    assert compiled.arithmetic == "fp32 on cpu, compiled"
    assert compiled.final_loss == pytest.approx(plain.final_loss, rel=1e-5)
    assert compiled.validation["loss"] == pytest.approx(plain.validation["loss"], rel=1e-5)


@pytest.mark.long
def test_kernels_of_the_compiler_give_the_loss_and_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor's for the CPU stand in for those of a GPU: of one layer and of the softmax, forward and backward."""
    monkeypatch.setenv(VARIABLE, "1")
    if (backend := backend_for("cpu")) is None:
        pytest.skip("no C++ compiler")
    model = language_model("token", num_layers=1)
    parameters = list(model.parameters())
    expected = model.loss(tokens(2))[0]
    wanted = torch.autograd.grad(expected, parameters)
    # A pool of compilers takes longer to start than these few kernels to build.
    with torch._inductor.config.patch(compile_threads=1), compiling(backend):
        found = model.loss(tokens(2))[0]
        given = torch.autograd.grad(found, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_cpu_compiles_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert backend_for("cpu") is None
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert backend_for("cpu") == "inductor"


def test_a_gpu_compiles_where_it_can_unless_it_is_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("calm_bench.regions._has_triton", lambda: True)
    for given, expected in ((None, "inductor"), ("1", "inductor"), ("0", None)):
        if given is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, given)
        assert backend_for("cuda:0") == expected
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr("calm_bench.regions._has_triton", lambda: False)
    assert backend_for("cuda:0") is None


@pytest.mark.slow
def test_a_compiler_that_fails_says_how_to_do_without() -> None:
    def failing(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        raise ValueError("ptxas was not found")

    _, loss = trained("multi_token")
    with compiling(failing), pytest.raises(RuntimeError, match="ptxas was not found") as failed:
        loss(tokens(2), Generator().manual_seed(0))
    assert failed.value.__notes__ == ["this happened in compiled code; CALM_BENCH_COMPILE=0 trains without compiling"]


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "1")
    assert backend_for("cpu") is None
    assert backend_for("cuda:0") is None


def test_without_the_headers_of_python_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every kernel would fail to be built; systems have them in a package of its own, as python3-dev."""
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("calm_bench.regions._has_triton", lambda: True)
    monkeypatch.setattr("sysconfig.get_path", lambda *names: str(tmp_path))
    assert backend_for("cpu") is None
    assert backend_for("cuda:0") is None
    (tmp_path / "Python.h").touch()
    assert backend_for("cpu") == backend_for("cuda:0") == "inductor"


def test_a_row_tells_compiled_from_uncompiled() -> None:
    assert training_arithmetic("auto", "cuda:1") == "bf16 on cuda"
    assert training_arithmetic("auto", "cuda:1", is_compiled=True) == "bf16 on cuda, compiled"
