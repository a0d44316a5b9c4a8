"""The machine as containers and clusters have it: users without a name or a home, long paths for temporary files."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.execution import ray_environment
from pipelines.execution.executor import ExecutorError
from pipelines.store.store import Store
from tests.faults.small_study import COMMAND, STUDY, begun, wait_for

TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: mine.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
USER = 54321


def as_nobody() -> list[str]:
    """The beginning of a command that runs as a user without an entry in the list of users, and without HOME.

    What it may read is not in question: the interpreter of these tests may lie in root's home.
    """
    if shutil.which("setpriv") is None or os.getuid() != 0:
        pytest.skip("needs root and setpriv (util-linux)")
    reads = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *reads]
    return [*user, "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "-u", "XDG_CACHE_HOME"]


@pytest.mark.extended
def test_a_user_without_name_and_home_runs_and_scores(tmp_path: Path) -> None:
    before = as_nobody()
    search = {"parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}}}]}
    (tmp_path / "small.yaml").write_text(json.dumps(STUDY | {"search": search}))
    (tmp_path / "mine.yaml").write_text(TASK)
    (tmp_path / "mine.jsonl").write_text('{"question": "1 2", "choices": [" 3", " 4"], "answer": 0}\n')
    (tmp_path / "tmp").mkdir()
    os.chown(tmp_path, USER, USER)
    os.chown(tmp_path / "tmp", USER, USER)
    for above in tmp_path.parents:
        if above.owner() == "root" and above.is_relative_to(Path("/tmp/pytest-of-root")):
            above.chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [*before, *COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("run", "small.yaml", "--local")
    (model,) = tmp_path.glob("runs/stages/language_model/*/model")
    run("eval", str(model), "--protocols", "none", "--tasks", "mine.yaml", "--no-track")
    assert not (tmp_path / "~").exists()
    assert (tmp_path / "tmp" / f"calm-bench-{USER}").stat().st_uid == USER


def test_ray_goes_elsewhere_where_its_sockets_would_have_too_long_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert ray_environment.short_folder() == {}
    monkeypatch.setenv("TMPDIR", f"/tmp/{'long' * 30}")
    assert ray_environment.short_folder() == {"RAY_TMPDIR": "/tmp"}
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'é' * 20}")
    assert ray_environment.short_folder() == {"RAY_TMPDIR": "/tmp"}, "bytes are counted, not letters"
    monkeypatch.setattr("os.access", lambda folder, mode: folder == "/dev/shm")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert ray_environment.short_folder() == {"RAY_TMPDIR": "/dev/shm"}, "the usual place cannot be written to"
    monkeypatch.setattr("os.access", lambda folder, mode: False)
    with pytest.raises(ExecutorError, match=r"files in /tmp: it cannot be written to\. Set RAY_TMPDIR"):
        ray_environment.short_folder()
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'é' * 20}")
    with pytest.raises(ExecutorError, match="Set RAY_TMPDIR to a folder of yours whose path has at most 37 bytes, or"):
        ray_environment.short_folder()


@pytest.mark.extended
def test_a_private_ray_starts_with_a_long_folder_for_temporary_files(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    environment = {**os.environ, "TMPDIR": str(long), "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(
        [*COMMAND, "doctor"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "started and ran a stage" in done.stdout, done.stdout + done.stderr


def test_loopback_that_is_down_is_said_at_once_and_brought_up_as_told() -> None:
    """A network namespace of its own has one, which is down."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    check = "from pipelines.execution.ray_instance import check_loopback; check_loopback()"

    def within(shell: str) -> subprocess.CompletedProcess[str]:
        inside = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", f"{shell}{sys.executable} -c '{check}'"]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=120)

    refused = within("")
    if "unshare failed" in refused.stderr:
        pytest.skip(f"no network namespaces here: {refused.stderr}")
    assert refused.returncode == 1
    named = re.search(r"\((ip link set lo up)\)", refused.stderr)
    assert named is not None, refused.stderr
    brought_up = within(f"{named[1]} && ")
    assert brought_up.returncode == 0, brought_up.stderr


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_named_and_another_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TASK)
    (tmp_path / "mine.jsonl").write_text('{"question": "1 2", "choices": [" 3", " 4"], "answer": 0}\n')

    def plan(**variables: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        command = [*COMMAND, "plan", "smoke", "benchmarks.tasks=[mine.yaml]"]
        environment = {**own, "HF_HOME": "/proc/nowhere", **variables}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = plan()
    assert refused.returncode == 2
    advised = re.search(r"\(/proc/nowhere/datasets: .*\): set (\w+) to one that can be written$", refused.stderr)
    assert advised is not None, refused.stderr
    done = plan(**{advised[1]: str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr


def test_a_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone && rmdir ../gone && exec {' '.join(map(shlex.quote, COMMAND))} studies"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the folder in which this was started has been removed" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("how", ["removed", "renamed", "renamed around the store"])
@pytest.mark.parametrize("executor", ["--local", "execution.retries=2"], ids=["local", "ray"])
def test_a_study_goes_on_when_the_folder_in_which_it_was_started_goes(how: str, executor: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "small.yaml").write_text(json.dumps(STUDY | {"tracking": {"enabled": True}}))
    store = Store(here / "store" if how == "renamed around the store" else tmp_path / "store")
    where = "store" if how == "renamed around the store" else "../store"
    driver = subprocess.Popen(
        [*COMMAND, "run", "../small.yaml", "--store", where, executor],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "MLFLOW_TRACKING_URI": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: begun(store, "autoencoder"), "a training has begun", of=driver)
    if how == "removed":
        here.rmdir()
    else:
        here.rename(tmp_path / "there")
    said, _ = driver.communicate(timeout=300)
    if how == "renamed around the store":
        assert driver.returncode == 1
        assert (
            f"{store.root} has been moved to {tmp_path / 'there' / 'store'} while work went on" in said.splitlines()[-1]
        )
        assert not here.exists()
    else:
        assert driver.returncode == 0, said
        assert "does not have all of this study" not in said
