"""What messages about executors and workers advise helps: it is taken out of the message itself and done."""

from __future__ import annotations

import inspect
import queue
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer.main

from pipelines.app.cli import app
from pipelines.app.entrance.study import Study as PythonStudy
from pipelines.execution import ray_environment, ray_instance, scheduler
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_executor import RayExecutor
from pipelines.execution.ray_instance import RayInstance, _missing_resource
from pipelines.execution.worker_group import GIB
from pipelines.execution.worker_process import prepare_process
from pipelines.planning.preflight import check_study
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Execution
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import StageKind

HERE = {"CPU": 8.0, "GPU": 1.0, "memory": 8.0 * GIB}
LEAST = {"cpus_per_stage": 1, "gpus_per_stage": 0, "memory_per_stage": 1, "workers": 1}


def advised(pattern: str, message: object) -> re.Match[str]:
    found = re.search(pattern, str(message))
    assert found is not None, message
    return found


def options_of_run() -> dict[str, str]:
    """The parameter of each option."""
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    return {option: str(parameter.name) for parameter in command.params for option in parameter.opts}


def has(option: str, parameter: str) -> bool:
    """Whether the command and Python's ``run`` have it."""
    return options_of_run()[option] == parameter and parameter in inspect.signature(PythonStudy.run).parameters


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        ({"gpus_per_stage": 2}, ["gpus_per_stage"]),
        ({"memory_per_stage": 9}, ["memory_per_stage"]),
        ({"gpus_per_stage": 1, "workers": 2}, ["gpus_per_stage", "workers"]),
        ({"memory_per_stage": 5, "workers": 2}, ["memory_per_stage", "workers"]),
        # One worker alone is too large.
        ({"memory_per_stage": 9, "workers": 2}, ["memory_per_stage"]),
    ],
)
def test_a_machine_that_is_too_small(needs: dict[str, int], names: list[str]) -> None:
    message = _missing_resource(Execution.model_validate(needs), HERE.__getitem__)
    lower, address = advised(r"lower (.+), or give the address of a cluster in (\S+)$", message).groups()
    assert [name.removeprefix("execution.") for name in lower.split(" or ")] == names
    for name in names:
        assert _missing_resource(Execution.model_validate(needs | {name: LEAST[name]}), HERE.__getitem__) is None
    assert address.removeprefix("execution.") in Execution.model_fields


def test_a_folder_for_the_files_of_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'long' * 30}")
    monkeypatch.setattr("os.access", lambda folder, mode: False)
    with pytest.raises(ExecutorError) as refused:
        ray_environment.short_folder()
    variable, bytes_, option = advised(
        r"Set (\w+) to a folder of yours whose path has at most (\d+) bytes, or use (\S+),", refused.value
    ).groups()
    monkeypatch.setenv(variable, "/" + "x" * (int(bytes_) - 1))
    assert ray_environment.short_folder() == {}
    monkeypatch.setenv(variable, "/" + "x" * int(bytes_))
    with pytest.raises(ExecutorError):
        ray_environment.short_folder()
    assert has(option, "local")


def test_a_run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: Execution) -> str:
        raise TimeoutError("Timed out.")

    monkeypatch.setattr(ray_instance, "_connect", connect)
    refused: queue.Queue[ExecutorError] = queue.Queue()
    instance = RayInstance(Execution())
    instance.do(lambda: None, refused.put)
    assert has(*advised(r"(--\w+) \(in Python run\((\w+)=True\)\) runs the same", refused.get(timeout=60)).groups())
    instance.end()


def test_a_stage_that_was_let_down() -> None:
    assert has(advised(r"(--[\w-]+) continues from there", scheduler.AGAIN)[1], "retry_failed")


def test_a_gpu_that_no_worker_sees(store: Store, toy: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    executor = RayExecutor(store, Execution(device="cuda"))
    with pytest.raises(ExecutorError) as refused:
        executor.submit(toy("text"))
    setting, one = advised(r"(execution\.\w+) is 0: set it to (\d), or a share$", refused.value).groups()
    for value in (one, "0.5"):
        check_study(resolve_study("smoke", ["corpus.source=markov", "execution.device=cuda", f"{setting}={value}"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kind = StageKind("of torch", lambda *_: {})
    with pytest.raises(RuntimeError) as unseen:
        prepare_process(kind, "cuda")
    for setting in advised(r"set (\S+), or (\S+)$", unseen.value).groups():
        execution = resolve_study("smoke", [setting]).execution
        assert execution.gpus_per_stage == 1 or prepare_process(kind, execution.device) == "cpu"
