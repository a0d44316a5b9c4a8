"""Whose code runs in a worker: the driver's, whatever lies in the folder where the study was started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.execution import same_code
from pipelines.execution.executor import ExecutorError
from pipelines.execution.same_code import ROOT, DriverCode, call_checked, pickled
from pipelines.store.provenance import code_digest
from pipelines.store.store import Store
from tests.faults.small_study import COMMAND, SIZE, STUDY, TRAINING

HOSTILE = "raise RuntimeError('imported from where the study was started')\n"
SHADOWS = ("statistics", "random", "queue", "csv", "numpy", "torch", "psutil", "yaml", "pydantic", "setuptools")
"""Modules of the standard library and of others that users' files are called like."""

HEAD = """
import statistics
from calm_bench.heads.energy import EnergyHead
from calm_bench.head_config import EnergyHead as Settings

assert statistics.mean([1, 3]) == 2, "the standard library's"

class Mine(EnergyHead):
    def __init__(self, hidden_size, latent_size):
        super().__init__(Settings(num_samples=4, num_targets=16, noise_size=8, num_blocks=1), hidden_size, latent_size)
"""


def litter(folder: Path) -> None:
    """What may lie beside a notebook: files of common names, another checkout, the user's own head."""
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(HOSTILE)
    for name in ("calm_bench", "evals", "pipelines"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(HOSTILE)
    (folder / "my_heads.py").write_text(HEAD)


@pytest.mark.slow
def test_files_beside_a_run_replace_nothing_in_its_workers(tmp_path: Path) -> None:
    folder, store = tmp_path / "here", Store(tmp_path / "store")
    folder.mkdir()
    litter(folder)
    model = STUDY["model"] | {"head": {"kind": "custom", "target": "my_heads:Mine"}}
    short = TRAINING | {"num_steps": 10}
    described = STUDY | {
        "autoencoder": {"latent_size": 8, **SIZE, "training": short},
        "model": model | {"chunk_size": 2, "training": short},
        "search": {"parameters": []},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(described))
    # The driver finds the user's head behind all else, as a notebook's or a script's would before.
    program = f"import sys; sys.path.remove(''); sys.path.append({str(folder)!r}); {COMMAND[2]}"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "study.yaml", "--store", str(store.root)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in store.root.glob("stages/*/*/provenance.json")]
    assert len(records) == 5
    assert {record["code"] for record in records} == {code_digest()}


def test_a_worker_with_other_code_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    code, call = DriverCode.here(), pickled(dict, {"done": True})
    assert call_checked(code, call) == {"done": True}
    monkeypatch.setattr(same_code, "code_digest", lambda: "0" * 64)
    refusal = call_checked(code, b"not even read")
    assert isinstance(refusal, ExecutorError)
    assert str(ROOT) in str(refusal)
    assert "other code of calm-bench" in str(refusal)


def test_users_modules_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    code = DriverCode.here()
    assert code.late[0] == str(tmp_path)
    monkeypatch.chdir("/")
    before = list(sys.path)
    code.join()
    assert os.getcwd() == str(tmp_path), "relative paths begin where the driver's do"
    assert sys.path[: len(before)] == before
    assert sys.path[-1] == code.late[-1]
