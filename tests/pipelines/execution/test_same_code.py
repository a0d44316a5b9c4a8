"""Whose code runs in a worker: the driver's, whatever lies in the folder where the study was started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pipelines.execution import ray_environment, same_code
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_environment import variables_for
from pipelines.execution.same_code import ROOT, DriverCode, call_checked, pickled
from pipelines.store.provenance import code_digest
from pipelines.store.store import Store
from pipelines.study.config import Execution
from tests.faults.small_study import COMMAND, SIZE, STUDY, TRAINING, wait_for
from tests.hostile_folder import HOSTILE, litter

HEAD = """
import statistics
from my_archived import NUM_SAMPLES
from calm_bench.heads.energy import EnergyHead
from calm_bench.head_config import EnergyHead as Settings

assert statistics.mean([1, 3]) == 2, "the standard library's"

class Mine(EnergyHead):
    def __init__(self, hidden_size, latent_size):
        sizes = {"num_targets": 16, "noise_size": 8, "num_blocks": 1}
        super().__init__(Settings(num_samples=NUM_SAMPLES, **sizes), hidden_size, latent_size)
"""


def own_code(folder: Path) -> tuple[Path, Path]:
    """A user's head in a folder that no installation knows, and what it imports from an archive in another."""
    heads, archive = folder / "heads", folder / "library.zip"
    heads.mkdir()
    (heads / "my_heads.py").write_text(HEAD)
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("my_archived.py", "NUM_SAMPLES = 4\n")
    return heads, archive


@pytest.mark.extended
def test_files_beside_a_run_replace_nothing_in_its_workers(tmp_path: Path) -> None:
    folder, store = litter(tmp_path / "here"), Store(tmp_path / "store")
    heads, archive = own_code(tmp_path)
    model = STUDY["model"] | {"head": {"kind": "custom", "target": "my_heads:Mine"}}
    short = TRAINING | {"num_steps": 10}
    described = STUDY | {
        "autoencoder": {"latent_size": 8, **SIZE, "training": short},
        "model": model | {"chunk_size": 2, "training": short},
        "search": {"parameters": []},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(described))
    # As a script does it that puts its own folders on the path.
    program = f"import sys; sys.path.remove(''); sys.path += {[str(heads), str(archive)]}; {COMMAND[2]}"
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
    with monkeypatch.context() as other:
        other.setattr(same_code, "code_digest", lambda: "0" * 64)
        refusal = call_checked(code, b"not even read")
    assert isinstance(refusal, ExecutorError)
    assert str(ROOT) in str(refusal)
    assert "other code of calm-bench" in str(refusal)
    # As it says: the same version on all nodes.
    assert "install the same version on all nodes" in str(refusal)
    assert call_checked(code, call) == {"done": True}


@pytest.mark.extended
def test_code_that_is_changed_while_a_study_runs_is_what_the_same_command_goes_on_with(tmp_path: Path) -> None:
    for name in ("calm_bench", "evals", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    short = {"training": TRAINING | {"num_steps": 10}}
    described = STUDY | {"model": {"kind": "token", **SIZE, **short}, "search": {"parameters": []}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(described))
    store = Store(tmp_path / "store")

    def run() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "run", "study.yaml", "--store", str(store.root), "--plain"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "code"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    driver = run()
    # Ray takes seconds then until a worker has imported what it is to run.
    wait_for(lambda: list(store.root.glob("studies/*/trials.json")), "the study has begun", of=driver)
    with (tmp_path / "code" / "calm_bench" / "config.py").open("a") as file:
        file.write("\n# changed\n")
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1, said
    assert "has other code of calm-bench" in said
    assert "the same command goes on with the new one" in said.splitlines()[-1]
    said, _ = (again := run()).communicate(timeout=300)
    assert again.returncode == 0, said
    records = [json.loads(path.read_text()) for path in store.root.glob("stages/*/*/provenance.json")]
    assert len({record["code"] for record in records}) == 1
    assert records[0]["code"] != code_digest()


def test_users_modules_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    code = DriverCode.here()
    assert code.folder == str(tmp_path)
    monkeypatch.chdir("/")
    before = list(sys.path)
    code.join()
    assert os.getcwd() == str(tmp_path), "relative paths begin where the driver's do"
    assert sys.path[: len(before)] == before
    assert sys.path[-1] == code.late[-1]


@pytest.mark.parametrize("kind", ["checkout", "site-packages of the interpreter", "site-packages elsewhere"])
def test_packages_called_as_ours_come_first_from_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A command imports its own packages whatever PYTHONPATH says, and so do its workers."""
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs" / "evals").mkdir()
    (tmp_path / "theirs" / "evals" / "__init__.py").write_text(HOSTILE)
    root = tmp_path / kind.partition(" ")[0]
    installed = kind == "site-packages of the interpreter"
    if installed:
        monkeypatch.setattr("site.getsitepackages", lambda: [str(root)])
    monkeypatch.setattr(ray_environment, "ROOT", root)
    mine, theirs = str(tmp_path / "mine"), str(tmp_path / "theirs")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([theirs, mine]))
    found = variables_for(Execution())["PYTHONPATH"].split(os.pathsep)
    assert found == ([mine] if installed else [str(root), mine])
    monkeypatch.setattr(sys, "path", [theirs, *sys.path])
    assert theirs in DriverCode.here().late
