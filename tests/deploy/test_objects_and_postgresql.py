"""A study in an object store that several drivers share: what the message advises who may not is typed, and works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.deploy.conftest import PASSWORD, Server
from tests.faults.conftest import finish
from tests.faults.small_study import COMMAND, STUDY, comparable, wait_for
from tests.object_stores import s3, s3_server

__all__ = ["s3", "s3_server"]

pytestmark = pytest.mark.slow

TOKENS = {**STUDY["model"], "kind": "token", "training": STUDY["model"]["training"] | {"num_steps": 60}}
SETTINGS = STUDY | {"model": TOKENS, "search": {"parameters": [{"name": "seed", "values": [0, 1]}]}}


@pytest.fixture
def start(tmp_path: Path, s3: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a driver on a host of its own; what is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    file = tmp_path / "faults.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))

    def run(host: str, *settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "run", str(file), "--local", "--store", s3, *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CALM_BENCH_CACHE": str(tmp_path / host)},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == code, said
    return said


@pytest.mark.long
def test_drivers_share_a_study_in_an_object_store_by_a_database(
    start: Callable[..., subprocess.Popen[str]],
    new_database: Callable[[], str],
    postgresql: Server,
    s3: str,
    tmp_path: Path,
) -> None:
    objects, database = ObjectStore(s3), new_database()
    alone = start("a")
    wait_for(lambda: any("/study-" in key for key in objects.list("leases")), "somebody runs the study", 180, of=alone)
    refused = " ".join(ended(start("b"), code=1).split())
    advised = re.search(r"have all drivers keep the trials in one database \(([a-z_.]+)\)", refused)
    assert advised is not None, refused
    alone.send_signal(signal.SIGINT)
    ended(alone, code=128 + signal.SIGINT)
    setting = f"{advised[1]}={database}"
    shared = [start("a", setting), start("b", setting)]
    said = [ended(process) for process in shared]

    name = database.rpartition("/")[2]
    assert postgresql.query(name, "SELECT state::text FROM trials") == ["COMPLETE"] * 2
    (board,) = (key for key in objects.list("studies") if key.endswith("/leaderboard.csv"))
    undisturbed = finish(Study.model_validate(SETTINGS), Store(tmp_path / "plain"))
    assert comparable(objects.read(board).decode()) == undisturbed.leaderboard
    assert not objects.list("leases")
    assert any("optuna.journal is not used: this study keeps its trials in postgresql://***@" in text for text in said)
    # What nobody names any more is said too, and everything is in the store.
    after = ended(start("c"))
    assert re.search(r"postgresql://\*\*\*@\S+ is not used: this study keeps its trials in a journal", after)
    texts = [*said, after, *(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())]
    assert not any(PASSWORD in text or PASSWORD.replace("/", "%2F") in text for text in texts)
    assert not any(PASSWORD.encode() in objects.read(key) for key in objects.list("studies"))
