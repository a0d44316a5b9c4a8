"""Two processes train what one trains. They are started once, for a list of trainings."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from calm_bench.training import Interrupted, checkpoint_files, loop
from calm_bench.training.checkpoint import Checkpoints, Counters
from calm_bench.training.distributed_group import DistributedGroup
from calm_bench.training.optim import build_optimizer
from calm_bench.training.parallel import current_workers, data_parallel
from calm_bench.training.workers import Strategy
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions
from calm_bench.worker_shares import CannotShare
from tests.calm_bench.training.tiny_trainings import (
    COMPARING_ROWS,
    STEPS,
    TOLERANCE,
    TRAINED,
    Killed,
    Trainings,
    assert_alike,
    assert_same,
    cut,
    never,
    state,
)

pytestmark = [
    pytest.mark.slow,
    # Of torch, about how fast bf16 is on a CPU.
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]


@dataclass(frozen=True)
class Job:
    """A training by two workers."""

    what: str
    folder: Path
    settings: dict[str, Any]
    strategy: Strategy = "ddp"
    stop_after: int | None = None
    options: TrainingOptions = DEFAULT_OPTIONS


@dataclass(frozen=True)
class Answer:
    result: dict[str, Any]
    error: str
    threads: int
    held: int = 0
    """Bytes of weights and of the optimizer's state on this worker in the end."""


def _worker(rank: int, port: int, trainings: Trainings, jobs: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    while (job := jobs.get()) is not None:
        answers.put((rank, _answer(rank, trainings, job) if isinstance(job, Job) else job()))
    dist.destroy_process_group()


def _answer(rank: int, trainings: Trainings, job: Job) -> Answer:
    # The workers are asked to stop at different steps: the first to be told is obeyed by both.
    left = iter(range(STEPS if job.stop_after is None else job.stop_after + rank))
    stop = never if job.stop_after is None else lambda: next(left, None) is None
    optimizers = []

    def remembered(*args: Any) -> torch.optim.Optimizer:
        optimizers.append(build_optimizer(*args))
        return optimizers[-1]

    try:
        with data_parallel(job.strategy), pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "build_optimizer", remembered)
            result = trainings.of(job.what, job.options, **job.settings)(job.folder, stop)
    except (Interrupted, CannotShare) as error:
        return Answer({}, f"{type(error).__name__}: {error}", 0)
    (optimizer,) = optimizers
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    held = _bytes([*weights, *(value for state in optimizer.state.values() for value in state.values())])
    return Answer(result, "", torch.get_num_threads(), held)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """What is held here, be it more than the tensors show."""
    own = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    # Several may be parts of one.
    storages = {storage.data_ptr(): storage.nbytes() for storage in map(torch.Tensor.untyped_storage, own)}
    return sum(storages.values())


def gradients_between_micro_batches() -> tuple[int, int]:
    """Bytes of gradients and of weights that this worker holds after the first of two micro-batches, divided."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(2)))
    group = DistributedGroup("fsdp")
    group.prepare(model, list(model), skips_parameters=False)
    with group.last(False):
        group.call(lambda: model(torch.ones(1, 64)).square().mean()).backward()
    weights = list(model.parameters())
    return _bytes(weight.grad for weight in weights if weight.grad is not None), _bytes(weights)


def memories_of_gradients() -> int:
    """In how many pieces of memory the gradients of two layers lie, of workers that hold the whole model each."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    group = DistributedGroup("ddp")
    group.prepare(model, [], skips_parameters=False)
    group.call(lambda: model(torch.ones(1, 4)).square().mean()).backward()
    return len({weight.grad.untyped_storage().data_ptr() for weight in model.parameters() if weight.grad is not None})


def formats_of_a_divided_model() -> tuple[list[str], list[str], list[str]]:
    """Of weights that are computed with, of gradients, and of weights that are kept: of two layers and one besides."""
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    group, seen = DistributedGroup("fsdp"), []
    group.prepare(model, list(model)[:2], skips_parameters=False, precision="bf16")
    for layer in model:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(layer.weight.dtype))

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(torch.ones(1, 4)).float().square().mean()

    group.call(loss).backward()
    weights = list(model.parameters())
    gradients = [weight.grad.dtype for weight in weights if weight.grad is not None]
    names = ([str(dtype).removeprefix("torch.") for dtype in found] for found in (seen, gradients))
    first, second = names
    return first, second, [str(weight.dtype).removeprefix("torch.") for weight in weights]


def mean_gradient_of_a_divided_model() -> float:
    """Of a weight whose gradients are 256 and 1 on the two workers, and whose products are in bf16."""
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(2)))
    for layer in model:
        nn.init.ones_(layer.weight)
    group = DistributedGroup("fsdp")
    group.prepare(model, list(model), skips_parameters=False, precision="bf16")

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(torch.tensor([[1.0 if group.rank else 256.0]])).float().sum()

    group.call(loss).backward()
    return float(model[0].weight.grad.full_tensor())


@dataclass(frozen=True)
class CheckpointInParts:
    """Both workers save a divided model twice; the second one is killed before it has written its part of the second.
    What each finds again, and the names of the files."""

    folder: Path

    def __call__(self) -> tuple[int, list[float], list[str]]:
        # The first to write must not be done with the step before the other is killed.
        with data_parallel("fsdp"), pytest.MonkeyPatch.context() as patch:
            model, optimizer = self._built()
            checkpoints = Checkpoints(self.folder)
            for step in (1, 2):
                for parameter in model.parameters():
                    nn.init.constant_(parameter, float(step))
                if step == 2 and current_workers().rank == 1:
                    patch.setattr(checkpoint_files, "write_with", _killed)
                checkpoints.save(model, optimizer, Counters(step, 1.0, 0, {}, {}))
                with suppress(Killed):
                    checkpoints.join()
            dist.barrier()
            model, optimizer = self._built()
            counters = Checkpoints(self.folder).restore(model, optimizer)
            assert counters is not None
            values = {float(value) for weight in model.parameters() for value in weight.full_tensor().flatten()}  # type: ignore[attr-defined]
            return counters.step, sorted(values), sorted(path.name for path in self.folder.iterdir())

    def _built(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        current_workers().prepare(model, list(model), skips_parameters=False)
        return model, torch.optim.AdamW(model.parameters())


def _killed(*ignored: Any) -> None:
    raise Killed


def scored_windows() -> dict[str, list[tuple[int, int, bool]]]:
    """Of held-out micro-batches, by how they are dealt: index, rows and whether they count, as this worker has them."""
    group = DistributedGroup()

    def own(sizes: list[int], parts: int, by_rows: bool) -> list[tuple[int, int, bool]]:
        shares = group.scored([torch.zeros(size, 3) for size in sizes], parts, by_rows)
        return [(share.index, len(share.tokens), share.counts) for share in shares]

    return {"whole": own([2, 2, 1], 2, True), "rows": own([5, 3], 1, True), "too few": own([4, 1], 1, True)}


Run = Callable[[Any], list[Any]]


@pytest.fixture(scope="module")
def run(trainings: Trainings, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Let both workers do a job, or call a function; their answers by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    jobs, answers = [context.Queue(), context.Queue()], context.Queue()
    with pytest.MonkeyPatch.context() as patch:
        # The children find this module by name.
        patch.setattr(sys, "path", [str(request.config.rootpath), *sys.path])
        workers = [
            context.Process(target=_worker, args=(rank, port, trainings, jobs[rank], answers), daemon=True)
            for rank in range(2)
        ]
        for worker in workers:
            worker.start()

    def run(job: Any) -> list[Any]:
        for queue in jobs:
            queue.put(job)
        given = dict(answers.get(timeout=300) for _ in workers)
        return [given[rank] for rank in range(2)]

    yield run
    for queue, worker in zip(jobs, workers, strict=True):
        queue.put(None)
        worker.join(timeout=30)
        worker.kill()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What workers are compared with has one thread as they do: torch cuts the backward pass of a layer norm by
    threads and rounds every thread's part of a bf16 gradient."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MICRO_BATCHES = {"gradient_accumulation": 2}
UNEVEN = {"batch_size": 5, "learning_rate": 2e-4}


@pytest.mark.parametrize(
    ("what", "settings", "strategy"),
    [
        *((what, {}, "ddp") for what in TRAINED if what != "custom"),
        ("custom", MICRO_BATCHES, "ddp"),
        ("energy", MICRO_BATCHES, "ddp"),
        ("energy", UNEVEN, "ddp"),
        ("autoencoder", UNEVEN, "ddp"),
        ("autoencoder", {}, "fsdp"),
        ("energy", {}, "fsdp"),
        ("energy", {"weight_average": 0.9}, "fsdp"),
        ("token", MICRO_BATCHES, "fsdp"),
        *(("energy", MICRO_BATCHES | {"precision": "bf16"}, strategy) for strategy in ("ddp", "fsdp")),
    ],
)
def test_two_workers_train_what_one_trains(
    what: str, settings: dict[str, Any], strategy: Strategy, run: Run, trainings: Trainings, tmp_path: Path
) -> None:
    first, second = run(Job(what, tmp_path, settings, strategy))
    reference, whole = trainings.undisturbed(what, **settings)
    assert (first.error, second.error) == ("", "")
    assert (first.threads, second.threads) == (1, 1)
    assert_alike(tmp_path, whole, first.result, reference, TOLERANCE[settings.get("precision", "fp32")])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_workers_compute_the_layers_of_a_divided_model_again(
    precision: str, run: Run, trainings: Trainings, tmp_path: Path
) -> None:
    settings = MICRO_BATCHES | {"precision": precision}
    options = TrainingOptions(activation_checkpointing=True)
    first, second = run(Job("energy", tmp_path, settings, "fsdp", options=options))
    reference, whole = trainings.undisturbed("energy", **settings)
    assert (first.error, second.error) == ("", "")
    assert_alike(tmp_path, whole, first.result, reference, TOLERANCE[precision])


def test_gradients_lie_in_the_memory_that_is_sent(run: Run) -> None:
    assert run(memories_of_gradients) == [1, 1]


def test_divided_layers_are_sent_in_bf16_and_their_gradients_summed_in_fp32(run: Run) -> None:
    for seen, gradients, weights in run(formats_of_a_divided_model):
        assert seen == ["bfloat16", "bfloat16", "float32"], "of two layers and of what is no layer"
        assert gradients == weights == ["float32"] * 3
    # In bf16 the neighbours of 128 are 1 apart.
    assert run(mean_gradient_of_a_divided_model) == [128.5, 128.5]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_two_workers_compute_their_rows_in_pieces(
    batch_size: int, strategy: Strategy, run: Run, trainings: Trainings, tmp_path: Path
) -> None:
    settings = UNEVEN | {"batch_size": batch_size}
    first, second = run(Job("energy", tmp_path, settings, strategy, options=TrainingOptions(micro_batch=1)))
    reference, whole = trainings.undisturbed("energy", **settings)
    assert (first.error, second.error) == ("", "")
    assert_alike(tmp_path, whole, first.result, reference, besides=COMPARING_ROWS)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_workers_stop_at_the_step_at_which_one_is_told_to(strategy: Strategy, run: Run, tmp_path: Path) -> None:
    answers = run(Job("energy", tmp_path / "cut", {}, strategy, stop_after=7))
    assert {answer.error for answer in answers} == {f"Interrupted: stopped after step 7 of {STEPS}"}
    resumed, whole = (run(Job("energy", tmp_path / name, {}, strategy))[0] for name in ("cut", "whole"))
    assert_same(resumed.result, tmp_path / "cut", whole.result, tmp_path / "whole")


@pytest.mark.parametrize(("before", "after"), [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_one_goes_on_where_two_were_stopped_and_two_where_one_was(
    before: Strategy, after: Strategy, run: Run, trainings: Trainings, tmp_path: Path
) -> None:
    run(Job("energy", tmp_path, {}, before, stop_after=5))
    run(Job("energy", tmp_path, {}, after, stop_after=1))
    cut(trainings.of("energy"), tmp_path, "stopped", 8)
    result = run(Job("energy", tmp_path, {}, after))[0].result
    reference, whole = trainings.undisturbed("energy")
    assert_alike(tmp_path, whole, result, reference)
    mine, theirs = state(tmp_path)[0], state(whole)[0]
    assert {name: tensor.shape for name, tensor in mine.items()} == {n: tensor.shape for n, tensor in theirs.items()}


def test_each_worker_writes_its_part_and_a_kill_in_between_leaves_the_checkpoint_before(
    run: Run, tmp_path: Path
) -> None:
    for step, values, names in run(CheckpointInParts(tmp_path)):
        assert (step, values) == (1, [1.0])
        assert names == [
            f"step-{step:09d}.{index:05d}-of-00002.{kind}"
            for step, index in ((1, 0), (1, 1), (2, 0))
            for kind in ("safetensors", "sha256")
        ]
    with safe_open(tmp_path / "step-000000001.00001-of-00002.safetensors", framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert shapes == {"model.0.weight": [1, 3], "model.0.bias": [1]}, "the last of three rows, nothing of one row"


def test_workers_that_divide_a_model_hold_half_of_it_each(run: Run, tmp_path: Path) -> None:
    """Weights and the optimizer's state of a training that has gone through a checkpoint."""
    held = {}
    strategies: tuple[Strategy, ...] = ("ddp", "fsdp")
    for strategy in strategies:
        run(Job("energy", tmp_path / strategy, {}, strategy, stop_after=5))
        held[strategy] = [answer.held for answer in run(Job("energy", tmp_path / strategy, {}, strategy))]
    whole = held["ddp"][0]
    assert held["ddp"] == [whole, whole]
    # Steps are counted for each parameter by every worker.
    assert all(0.5 * whole <= part < 0.52 * whole for part in held["fsdp"]), held


def test_gradients_are_divided_between_micro_batches_too(run: Run) -> None:
    for gradients, weights in run(gradients_between_micro_batches):
        assert gradients == weights == 2 * 4 * (64 * 64 + 64) / 2


def test_validation_is_dealt_out_and_every_worker_calls_the_model_as_often(run: Run) -> None:
    first, second = run(scored_windows)
    assert first == {
        "whole": [(0, 2, True), (2, 1, True)],
        "rows": [(0, 2, True), (1, 1, True)],
        "too few": [(0, 4, True)],
    }
    assert second == {
        "whole": [(1, 2, True), (2, 1, False)],
        "rows": [(0, 3, True), (1, 2, True)],
        "too few": [(1, 1, True)],
    }


@pytest.mark.parametrize(
    ("what", "settings", "message"),
    [
        ("custom", {}, "set model.training.gradient_accumulation to a multiple of 2"),
        (
            "token",
            {"batch_size": 3, "gradient_accumulation": 3},
            "lower execution.workers or raise its batch_size",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(
    what: str, settings: dict[str, Any], message: str, run: Run, tmp_path: Path
) -> None:
    for answer in run(Job(what, tmp_path, settings)):
        assert answer.error.startswith("CannotShare: 2 workers cannot share")
        assert message in answer.error
