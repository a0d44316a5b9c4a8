"""The MLflow service of the compose file, started as it stands there, on a real PostgreSQL and an S3 server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.tracking.client import connect
from tests.deploy.conftest import Server

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "mlflow" / "compose.yaml"
SECRETS = {"POSTGRES_PASSWORD": "", "S3_SECRET_KEY": "testing"}


def _service(name: str) -> dict[str, Any]:
    """A service with the variables of its settings filled in, as ``docker compose`` does."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: SECRETS[found[1]], COMPOSE.read_text())
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    service: dict[str, Any] = yaml.safe_load(text)["services"][name]
    return service


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
    for process in started:
        process.wait(60)


def _until_it_answers(command: list[str], of: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
        assert of.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


@pytest.mark.extended
def test_the_server_of_the_compose_file_takes_runs_and_files(
    start: Callable[..., subprocess.Popen[bytes]],
    new_database: Callable[[], str],
    postgresql: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(
        "moto.server", reason="the S3 server of the tests is not installed (pip install 'moto[server]')"
    )
    database = new_database()
    s3_port, port = _free_port(), _free_port()
    start([sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(s3_port)])

    buckets, mlflow = _service("buckets"), _service("mlflow")
    s3 = f"http://127.0.0.1:{s3_port}"
    environment = buckets["environment"] | {"MLFLOW_S3_ENDPOINT_URL": s3}
    for _ in range(2):
        program, script, *names = buckets["command"]
        assert program == "python"
        made = start([sys.executable, str(COMPOSE.with_name(script)), *names], **environment)
        assert made.wait(240) == 0, "the second time they are there already"

    assert mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://calm:@postgres:5432/mlflow"
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--workers=2": "--workers=1"}
    command = [here.get(word, word) for word in mlflow["command"]]
    assert command[:2] == ["mlflow", "server"]
    server = start(
        [sys.executable, "-m", *command],
        **mlflow["environment"] | {"MLFLOW_S3_ENDPOINT_URL": s3, "MLFLOW_BACKEND_STORE_URI": database},
    )
    _, program, *healthy = mlflow["healthcheck"]["test"]
    assert program == "python"
    healthy = [word.replace(":5000/", f":{port}/") for word in healthy]
    _until_it_answers([sys.executable, *healthy], server, tmp_path / "3.log")

    client = connect(f"http://127.0.0.1:{port}")
    run = client.create_run(client.create_experiment("calm-bench"))
    client.log_metric(run.info.run_id, "brierlm", 14.5, step=3)
    client.log_text(run.info.run_id, "a table", "leaderboard.md")
    assert [point.value for point in client.get_metric_history(run.info.run_id, "brierlm")] == [14.5]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["leaderboard.md"]
    assert postgresql.query(database.rpartition("/")[2], "SELECT key FROM metrics") == ["brierlm"]

    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, environment[name])
    storage = boto3.client("s3", endpoint_url=s3)
    assert {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]} == {"mlflow", "calm-bench"}
    (kept,) = storage.list_objects_v2(Bucket="mlflow")["Contents"]
    assert kept["Key"].endswith("/leaderboard.md")
    assert storage.get_object(Bucket="mlflow", Key=kept["Key"])["Body"].read() == b"a table"


def test_the_databases_of_the_compose_file(postgresql: Server) -> None:
    """The script that PostgreSQL's image runs once; Optuna's database is apart from MLflow's."""
    import psycopg

    statements = (COMPOSE.parent / "databases.sql").read_text().encode()
    with psycopg.connect(postgresql.uri("postgres"), autocommit=True) as connection:
        connection.execute(statements)
        names = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        connection.execute("DROP DATABASE optuna")
    assert "optuna" in names
    assert _service("postgres")["environment"]["POSTGRES_DB"] == "mlflow"
