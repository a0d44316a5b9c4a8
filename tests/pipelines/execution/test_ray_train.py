"""Trainings by two workers through the real Ray Train, and stages that share a GPU which is none."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import torch

from calm_bench.config import Experiment
from pipelines.execution.choose_executor import make_executor
from pipelines.execution.executor import ExecutorError
from pipelines.execution.failures import WorkerFailed, kernel_kills
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import RayExecutor
from pipelines.execution.ray_train import PEER, is_lost_peer, worst
from pipelines.execution.run_stage import StageError, _told
from pipelines.execution.worker_group import WorkerGroup, worker_group_of
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.graph import stages_for
from pipelines.study.stage import Interrupted, Stage, StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

TOLERANCE = 1e-5
STRATEGIES: tuple[Literal["ddp", "fsdp"], ...] = ("ddp", "fsdp")


HELD_STEP = 30
"""Of an attempt; after two checkpoints or three."""


def hold_file(root: Path) -> Path:
    return root / "hold"


def run_watched(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Train a language model, and note how many threads this process has and where it computes.

    While there is a file ``hold`` in the store, it waits after some steps, until something has happened to it.
    """
    from calm_bench.training.parallel import current_workers
    from pipelines.study.kinds.language_model import run_language_model

    variables = (os.environ.get(name) for name in ("OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF"))
    told = (torch.get_num_threads(), *variables, context.device)
    (folder / f"worker-{current_workers().rank}").write_text(" ".join(map(str, told)))
    step, taken = torch.optim.AdamW.step, 0

    def waiting_step(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        nonlocal taken
        taken += 1
        while taken == HELD_STEP and hold_file(folder.parents[1]).exists():
            time.sleep(0.01)
        return step(self, *arguments, **options)

    torch.optim.AdamW.step = waiting_step  # type: ignore[method-assign, assignment]
    try:
        return run_language_model(stage, inputs, folder, context)
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]


def run_meeting(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Ends when as many as it expects are under way at once; tells which GPUs it was given."""
    meeting = folder.parent / f"meeting of {stage.config['expected']}"
    meeting.mkdir(exist_ok=True)
    (meeting / folder.name).touch()
    while len(list(meeting.iterdir())) < stage.config["expected"]:
        if context.stop():
            raise Interrupted("nobody came")
        time.sleep(0.01)
    return {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


@pytest.fixture(autouse=True)
def _kinds() -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    STAGE_KINDS.register("watched", StageKind("watched", run_watched, data_parallel=True))
    STAGE_KINDS.register("meeting", StageKind("meeting", run_meeting, uses_torch=False))
    STAGE_KINDS.register("gathering", StageKind("gathering", run_meeting, uses_torch=False, uses_device=False))


def graph(**training: Any) -> StageGraph:
    settings = {
        "batch_size": 4,
        "sequence_length": 32,
        "warmup_steps": 1,
        "log_every": 4,
        "validation_batches": 1,
        "checkpoint_every": 10,
        **training,
    }
    size = {"hidden_size": 16, "intermediate_size": 16}
    head = {"num_samples": 2, "num_targets": 4, "noise_size": 4, "num_blocks": 1}
    model = {**size, "chunk_size": 2, "num_layers": 1, "num_attention_heads": 2, "head": head, "training": settings}
    return stages_for(
        Experiment.model_validate(
            {
                "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 100}},
                "autoencoder": {"latent_size": 8, **size, "training": settings | {"num_steps": 12}},
                "model": model,
                "samples": {"num_prompts": 0},
            }
        )
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, RayExecutor]]:
    """One Ray for the module, which believes that this machine has a GPU; trainings get two workers."""
    store = Store(tmp_path_factory.mktemp("shared"))
    execution = Execution(workers=2, cpus_per_stage=0.25, max_parallel=4, device="cpu")
    executor = RayExecutor(store, execution)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"GPU": 1}))
        # Until Ray has started, with the first stage of whichever test.
        yield store, executor
    executor.close()


def configured(executor: RayExecutor, execution: Execution) -> RayExecutor:
    """The same Ray, with other wishes."""
    other = copy.copy(executor)
    other._execution = execution
    return other


def run_here(store: Store, *stages: Stage) -> None:
    executor = LocalExecutor(store, "cpu")
    for stage in stages:
        executor.submit(stage).result()
    executor.close()


def lines(store: Store, stage: Stage) -> list[tuple[int, str, dict[str, float]]]:
    records = map(json.loads, (store.folder(stage) / "metrics.jsonl").read_text().splitlines())
    return [
        (record["step"], record["split"], {k: v for k, v in record["metrics"].items() if k != "tokens_per_second"})
        for record in records
    ]


def assert_same_losses(store: Store, alone: Store, stage: Stage) -> None:
    mine, theirs = lines(store, stage), lines(alone, stage)
    assert [line[:2] for line in mine] == [line[:2] for line in theirs]
    for (*_, values), (*_, expected) in zip(mine, theirs, strict=True):
        losses = {name: value for name, value in expected.items() if not name.startswith("grad_norm")}
        assert {name: values[name] for name in losses} == pytest.approx(losses, rel=TOLERANCE, abs=TOLERANCE)


def wait_for_checkpoint(store: Store, stage: Stage, after: int, running: Future[dict[str, Any]]) -> None:
    folder, deadline = store.work_folder(stage) / "checkpoints", time.monotonic() + 400
    while not any(int(path.stem.removeprefix("step-").partition(".")[0]) > after for path in folder.glob("*.sha256")):
        assert time.monotonic() < deadline
        assert not running.done(), running.exception()
        time.sleep(0.01)


@pytest.mark.extended
def test_two_workers_train_what_one_trains(shared: tuple[Store, RayExecutor], tmp_path: Path) -> None:
    """It loses a worker, goes on divided, is stopped, is finished by one process: its losses tell nothing of that."""
    store, executor = shared
    # A rate at which roundings stay roundings over 600 steps.
    corpus, tokens, autoencoder, trained, *_ = graph(num_steps=600, learning_rate=1e-5).stages
    model = Stage("watched", 1, trained.config, trained.inputs)
    run_here(store, corpus, tokens, autoencoder)

    hold_file(store.root).touch()
    running = executor.submit(model)
    wait_for_checkpoint(store, model, 0, running)
    workers = [p for p in psutil.Process().children(recursive=True) if "TrainWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2, workers
    open_ports = [c for w in workers for c in w.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {port.laddr.ip.removeprefix("::ffff:") for port in open_ports} == {"127.0.0.1"}
    workers[1].kill()
    hold_file(store.root).unlink()
    with pytest.raises(StageError, match=r"watched: (WorkerLost|LostPeer)") as caught:
        running.result()
    assert caught.value.cause == "transient"
    assert not store.is_claimed(model)
    work = store.work_folder(model)
    assert [(work / f"worker-{rank}").read_text() for rank in range(2)] == ["1 1 expandable_segments:True cpu"] * 2

    reached = int(sorted((work / "checkpoints").glob("*.sha256"))[-1].stem.removeprefix("step-").partition(".")[0])
    divided = configured(executor, Execution(workers=2, cpus_per_stage=0.25, device="cpu", strategy="fsdp"))
    hold_file(store.root).touch()
    running = divided.submit(model)
    wait_for_checkpoint(store, model, reached, running)
    divided.stop_stage(model)
    hold_file(store.root).unlink()
    with pytest.raises(Interrupted, match=r"stopped after step \d+ of 600"):
        running.result()
    assert not (work / "stop").exists()

    alone = Store(tmp_path)
    run_here(store, model)
    run_here(alone, corpus, tokens, autoencoder, model)
    assert len(json.loads((store.folder(model) / "provenance.json").read_text())["attempts"]) == 3
    assert_same_losses(store, alone, model)


@pytest.mark.extended
def test_a_stage_is_stopped_while_it_waits_for_room(shared: tuple[Store, RayExecutor]) -> None:
    store, executor = shared
    waiting = configured(executor, Execution(workers=64, device="cpu"))
    stage = Stage("watched", 1, {"seed": 1})
    future = waiting.submit(stage)
    while not store.is_claimed(stage):
        time.sleep(0.01)
    time.sleep(0.5)
    assert not future.done()
    executor.stop_stage(stage)
    with pytest.raises(Interrupted, match="stopped before there was room for 64 workers"):
        future.result()


@pytest.mark.extended
def test_two_stages_share_a_gpu(shared: tuple[Store, RayExecutor]) -> None:
    store, executor = shared
    halves = configured(executor, Execution(gpus_per_stage=0.5, cpus_per_stage=0.1))
    without = halves.submit(Stage("gathering", 1, {"expected": 1}))
    pair = [halves.submit(Stage("meeting", 1, {"expected": 2, "number": n})) for n in range(2)]
    assert [future.result() for future in pair] == [{"gpus": "0"}] * 2
    assert without.result() == {"gpus": ""}, "what gains nothing from a GPU sees none"
    three = [Stage("meeting", 1, {"expected": 9, "number": n}) for n in range(3)]
    futures = [halves.submit(stage) for stage in three]
    while sum(store.is_claimed(stage) for stage in three) < 2:
        time.sleep(0.01)
    time.sleep(1.0)
    assert sum(store.is_claimed(stage) for stage in three) == 2, "a third one does not fit"
    for stage, future in zip(three, futures, strict=True):
        halves.stop_stage(stage)
        with pytest.raises(Interrupted):
            future.result()


def test_only_trainings_have_several_workers() -> None:
    execution = Execution(workers=3, strategy="fsdp", cpus_per_stage=2, gpus_per_stage=1, memory_per_stage=4)
    groups = {
        name: worker_group_of(STAGE_KINDS.get(name), execution)
        for name in ("corpus", "tokens", "evaluation", "samples")
    }
    assert set(groups.values()) == {None}
    for name in ("autoencoder", "language_model"):
        group = worker_group_of(STAGE_KINDS.get(name), execution)
        assert group is not None
        assert (group.size, group.strategy) == (3, "fsdp")
        assert group.resources == {"CPU": 2, "GPU": 1, "memory": 4 * 2**30}
        assert worker_group_of(STAGE_KINDS.get(name), Execution()) is None


def test_workers_need_ray_and_whole_gpus(store: Store) -> None:
    with pytest.raises(ExecutorError, match=r"execution\.workers=2 needs Ray.*without --local.*execution\.workers=1"):
        make_executor(Execution(backend="local", workers=2), store)
    with pytest.raises(
        ValueError, match=r"workers=2 with gpus_per_stage=0\.5: workers of one training need a GPU each"
    ):
        Execution(workers=2, gpus_per_stage=0.5)


def test_workers_are_no_part_of_what_a_stage_is() -> None:
    assert "workers" not in json.dumps([stage.description() for stage in graph(num_steps=1).stages])


def test_a_failure_crosses_processes_in_words() -> None:
    try:
        raise MemoryError("no room")
    except MemoryError as error:
        failed = pickle.loads(pickle.dumps(WorkerFailed.of(error)))
    assert (failed.name, str(failed), failed.cause) == ("MemoryError", "no room", "memory")
    assert "raise MemoryError" in failed.details


def test_the_failure_that_brought_the_others_about_is_told() -> None:
    peer = WorkerFailed(PEER, "connection closed by peer", "", "transient")
    full = WorkerFailed("OSError", "no space left", "", "transient")
    lost = RuntimeError("the actor died")
    assert worst({0: peer, 1: full, 2: lost}, kernel_kills()) is full
    told = worst({0: peer, 2: lost}, kernel_kills())
    assert told is not None
    assert (told.name, str(told), told.cause) == ("WorkerLost", "worker 2 was lost: the actor died", "transient")
    assert worst({0: peer}, kernel_kills()) is peer
    killed = worst({0: peer, 2: lost}, kernel_kills() - 1)
    assert killed is not None
    assert killed.cause == "memory"
    assert worst({}, kernel_kills()) is None


def test_a_model_that_is_too_large_may_be_divided(tmp_path: Path) -> None:
    error = WorkerFailed("OutOfMemoryError", "no room", "", "memory")
    *_, autoencoder, model, _ = graph(num_steps=1).stages
    groups: list[WorkerGroup | None] = [None, *(WorkerGroup(2, strategy, 1.0, 1.0, None) for strategy in STRATEGIES)]
    advice = "divide the model among its workers (execution.strategy=fsdp)"
    assert [
        advice in str(_told(model, STAGE_KINDS.get("language_model"), tmp_path, error, group)) for group in groups
    ] == [False, True, False]
    assert not any(
        advice in str(_told(autoencoder, STAGE_KINDS.get("autoencoder"), tmp_path, error, group)) for group in groups
    )


def test_workers_talk_over_the_interface_that_has_their_nodes_address() -> None:
    from pipelines.execution.process_group import interface_of

    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    assert loopback.startswith("lo")
    assert interface_of("203.0.113.1") is None, "an address of nobody, as behind a translated one"


def test_a_broken_connection_is_no_fault_of_who_finds_it() -> None:
    assert is_lost_peer(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40218"))
    assert is_lost_peer(torch.distributed.DistBackendError("NCCL error"))
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_peer(ValueError("gloo"))
