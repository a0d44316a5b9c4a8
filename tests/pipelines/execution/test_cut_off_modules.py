"""A compiled module that a full disk cut off, met by a stage: its trial fails with what to do about it."""

from __future__ import annotations

import importlib
import py_compile
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from calm_bench.problems import ConfigurationError
from pipelines.common.compiled_modules import way_out
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import _lost
from pipelines.execution.run_stage import StageError
from pipelines.store.store import Store
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind


def run_importing(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    import halved  # type: ignore[import-not-found]

    return {"value": halved.VALUE}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Python keeps compiled modules; that of ``halved`` is cut off."""
    cache = tmp_path / "compiled modules"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "halved.py").write_text(f"VALUE = 3.0\nTEXT = {'x' * 2000!r}\n")
    monkeypatch.setattr(sys, "pycache_prefix", str(cache))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    compiled = Path(py_compile.compile(str(tmp_path / "code" / "halved.py"), doraise=True))
    compiled.write_bytes(compiled.read_bytes()[:400])
    importlib.invalidate_caches()
    return cache


@pytest.mark.parametrize("moment", ["run", "get_ready"])
def test_what_to_do_about_it_is_said(moment: str, cache: Path, tmp_path: Path) -> None:
    def get_ready() -> None:
        import halved  # noqa: F401

    name = f"importing-{moment}"
    ready: dict[str, Any] = {"get_ready": get_ready} if moment == "get_ready" else {"uses_torch": False}
    STAGE_KINDS.register(name, StageKind(name, run_importing, **ready))
    stage = Stage(name, 1, {"seed": 0}, {})
    executor = LocalExecutor(Store(tmp_path / "store"), "cpu")
    try:
        failed: Future[dict[str, Any]] = executor.submit(stage)
        with pytest.raises(StageError, match="a compiled module is cut off, as a full disk leaves it") as caught:
            failed.result(120)
        command = str(caught.value).partition("leaves it: ")[2].partition(";")[0]
        assert str(cache) in command
        subprocess.run(["bash", "-c", command], check=True)
        assert not list(cache.rglob("*.pyc"))
        assert executor.submit(stage).result(120) == {"value": 3.0}
    finally:
        executor.close()
        sys.modules.pop("halved", None)


def test_it_is_said_of_a_worker_of_ray_that_cannot_read_what_it_is_sent() -> None:
    """Modules are imported before the stage begins there, and Ray hands on what comes of that."""
    from ray.exceptions import RayTaskError

    stage = Stage("text", 1, {"seed": 0}, {})
    error = RayTaskError("call_checked", "Traceback ...", EOFError("marshal data too short")).as_instanceof_cause()
    assert "a compiled module is cut off" in str(_lost(stage, error, kernel_killed=False, logs=None))
    other = RayTaskError("call_checked", "Traceback ...", ValueError("marshal data too short")).as_instanceof_cause()
    assert "could not start" in str(_lost(stage, other, kernel_killed=False, logs=None))


def test_other_errors_have_other_ways_out() -> None:
    assert way_out("EOFError", "the numbers end after 7 of 12") is None
    assert way_out(ConfigurationError.__name__, "marshal data too short") is None
