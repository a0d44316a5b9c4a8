"""What is tried again, what is not, and what is said when memory runs out."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from calm_bench.config import Experiment
from calm_bench.corpora.base import CorpusAway, CorpusError
from calm_bench.kept_elsewhere import NotThere
from calm_bench.memory import autoencoder_training_memory, training_memory
from calm_bench.working_directory import NOWHERE
from pipelines.execution.events import StageFailed, StageFinished, StageRetried
from pipelines.execution.failures import cause_of
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.run_stage import StageError
from pipelines.execution.scheduler import Scheduler
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

Toy = Callable[..., Stage]


def _run(store: Store, graph: StageGraph, listener: Any, retries: int) -> Scheduler:
    executor = LocalExecutor(store)
    scheduler = Scheduler(store, executor, listener, retries)
    scheduler.add(graph)
    scheduler.submit()
    while not scheduler.is_idle:
        scheduler.wait()
        scheduler.submit()
    executor.close()
    return scheduler


def test_a_full_disk_is_met_again_from_the_checkpoint(store: Store, toy: Toy, recorder: Any) -> None:
    stage, listener = toy("unlucky", seed=2), recorder()
    scheduler = _run(store, StageGraph((stage,)), listener, retries=2)
    assert scheduler.results[stage] == {"value": 2.0}
    told = [(event.attempt, event.retries) for event in listener.events if isinstance(event, StageRetried)]
    assert told == [(1, 2), (2, 2)]
    assert not (store.folder(stage) / "error.txt").exists(), "the traceback of an earlier try is no result"


def test_a_stage_that_stays_unlucky_fails_after_the_stated_number(store: Store, toy: Toy, recorder: Any) -> None:
    stage, listener = toy("unlucky", seed=2), recorder()
    scheduler = _run(store, StageGraph((stage,)), listener, retries=1)
    assert "No space left on device" in scheduler.errors[stage]
    assert scheduler.errors[stage].endswith("--retry-failed continues from there")
    (retried,) = [event for event in listener.events if isinstance(event, StageRetried)]
    assert "--retry-failed" not in retried.error, "it goes on by itself"
    assert len(listener.kinds_of(StageRetried)) == 1
    assert listener.kinds_of(StageFailed) == ["unlucky"]


def test_what_would_fail_again_is_not_tried_again(store: Store, toy: Toy, recorder: Any) -> None:
    for kind in ("fail", "greedy"):
        listener = recorder()
        scheduler = _run(store, StageGraph((toy(kind),)), listener, retries=5)
        assert list(scheduler.errors) == [toy(kind)]
        assert listener.kinds_of(StageRetried) == []
    assert (store.work_folder(toy("greedy")) / "tries").read_text() == "x"


def _run_homeless(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Asks where it works, as libraries do while they are imported; somebody has removed that at first."""
    if not (folder / "tried").exists():
        (folder / "tried").mkdir()
        os.chdir(folder / "tried")
        (folder / "tried").rename(folder / "here")
        (folder / "here").rmdir()
        (folder / "tried").touch()
    return {"value": float(len(os.getcwd()))}


def test_a_working_directory_that_was_removed_is_left_for_the_next_attempt(
    store: Store, toy: Toy, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.root.parent)
    STAGE_KINDS.register("homeless", StageKind("homeless", _run_homeless, uses_torch=False))
    scheduler = _run(store, StageGraph((toy("homeless"),)), recorder(), retries=1)
    assert scheduler.errors == {}
    assert os.getcwd() == NOWHERE


def test_too_little_memory_is_told_as_such(store: Store, toy: Toy) -> None:
    executor = LocalExecutor(store)
    with pytest.raises(StageError, match=r"greedy: out of memory \(RuntimeError: .*execution\.max_parallel") as caught:
        executor.submit(toy("greedy")).result()
    assert caught.value.cause == "memory"
    assert "ulimit" not in str(caught.value)
    executor.close()


def test_a_limit_of_addresses_is_named_where_memory_runs_out(
    store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer stages at once change nothing where a shell gives each process so much."""
    monkeypatch.setattr("pipelines.execution.run_stage.address_limit", lambda: 700 * 2**20)
    executor = LocalExecutor(store)
    with pytest.raises(StageError, match=r"ulimit -v leaves each process 0\.684 GiB; raise it \(ulimit .+\), else "):
        executor.submit(toy("greedy")).result()
    executor.close()


def advice_for(stage: Stage, strategy: str | None = None) -> str:
    return STAGE_KINDS.get(stage.kind).memory_advice(stage, strategy)


def test_the_advice_has_the_size_and_says_how_to_make_it_smaller(tiny_study: Callable[..., Study]) -> None:
    graph = stages_for(tiny_study().experiment())
    report = advice_for(graph["language_model"])
    assert "parameters, 4 sequences of 32 tokens at once" in report
    assert "execution.micro_batch=2 has 2 sequences" in report
    assert "execution.micro_batch=2" in advice_for(graph["autoencoder"])
    assert "execution.strategy=fsdp" not in report + advice_for(graph["autoencoder"], "ddp")
    assert "execution.strategy=fsdp" in advice_for(graph["language_model"], "ddp")
    assert "execution.memory_per_stage" in advice_for(graph["evaluation"])
    one = tiny_study().model.training.model_copy(update={"batch_size": 3, "gradient_accumulation": 3})
    small = tiny_study().experiment()
    small = small.model_copy(update={"model": small.model.model_copy(update={"training": one})})
    assert "micro_batch" not in advice_for(stages_for(small)["language_model"])


@pytest.mark.parametrize("kind", ["language_model", "autoencoder"])
def test_the_micro_batches_that_are_advised_take_less_memory(tiny_study: Callable[..., Study], kind: str) -> None:
    before = tiny_study().experiment()
    named = re.search(r"execution\.micro_batch=(\d+)", advice_for(stages_for(before)[kind]))
    assert named is not None
    assert memory_of(kind, before, int(named[1])) < memory_of(kind, before, None)


def memory_of(kind: str, experiment: Experiment, sequences: int | None) -> float:
    if kind == "autoencoder":
        sizes = (experiment.autoencoder, experiment.model.chunk_size, 257)
        return autoencoder_training_memory(*sizes, sequences=sequences).total
    return training_memory(experiment.model, experiment.autoencoder, 257, sequences=sequences).total


def _raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "transient"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (ConnectionResetError("peer"), "transient"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "transient"),
        (SafetensorError("Error while deserializing header: header too small"), "permanent"),
        (FileNotFoundError("absent.txt"), "permanent"),
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "permanent"),
        (_raised_from(ValueError("no model in the folder"), TimeoutError("file server")), "transient"),
        (CorpusAway("cannot read http://host/a.txt: 503"), "transient"),
        (_raised_from(NotThere("what is kept elsewhere"), CorpusAway("503")), "transient"),
        (CorpusError("a.txt has no text"), "permanent"),
        (ZeroDivisionError(), "permanent"),
    ],
)
def test_errors_are_told_apart(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_a_damaged_input_is_made_again(store: Store, toy: Toy, recorder: Any) -> None:
    first = toy("draw", seed=1)
    middle = toy("second", seed=2, first=first)
    last = toy("third", seed=3, second=middle)
    graph = StageGraph((first, middle, last))
    undisturbed = _run(store, StageGraph((first, middle)), recorder(), retries=1).results[middle]

    metrics = store.folder(middle) / "metrics.jsonl"
    content = bytearray(metrics.read_bytes())
    content[5] ^= 1
    metrics.write_bytes(content)
    listener = recorder()
    scheduler = _run(store, graph, listener, retries=1)
    assert scheduler.results[last]["value"] != 0
    assert listener.kinds_of(StageFinished) == ["second", "third"], "the damaged one, and the one that read it"
    assert scheduler.results[middle]["value"] == undisturbed["value"]
    (retried,) = [event for event in listener.events if isinstance(event, StageRetried)]
    assert "metrics.jsonl has other content than was published" in retried.error
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_an_input_that_is_gone_is_made_again(store: Store, toy: Toy, recorder: Any) -> None:
    first = toy("draw", seed=1)
    last = toy("second", seed=2, first=first)
    executor = LocalExecutor(store)
    scheduler = Scheduler(store, executor, recorder(), retries=1)
    scheduler.add(StageGraph((first,)))
    scheduler.submit()
    while not scheduler.is_idle:
        scheduler.wait()
    store.folder(first).rename(store.root / "elsewhere")
    scheduler.add(StageGraph((first, last)))
    while last not in scheduler.results:
        scheduler.submit()
        scheduler.wait()
    assert store.is_done(first)
    executor.close()
