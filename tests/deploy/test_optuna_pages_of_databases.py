"""``calm-bench ui`` on trials in PostgreSQL, beside others in journals; its password is nowhere to be seen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import psutil
import pytest

from calm_bench.atomic import write_json
from calm_bench.overrides import ConfigurationError
from pipelines.planning.preflight import check_study
from pipelines.search.trial_queue import TrialQueue, TrialResult
from pipelines.search.trial_storage import VARIABLE, Database, Journal, TrialStorage, trial_storage
from pipelines.store.store import Store
from pipelines.store.study_record import resolved_yaml
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.search_settings import Search
from pipelines.tracking.servers import LOOPBACK, free_port
from tests.deploy.conftest import PASSWORD, Server

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard, of the extra ui, is not installed")

from pipelines.app.ui_servers import UiServers, study_lines
from pipelines.tracking.optuna_pages import OptunaPages, StudyCopies
from pipelines.tracking.trial_sources import hidden_databases, open_database

SEARCH = Search.model_validate({"parameters": [{"name": "seed", "values": [0, 1]}]})


def add(root: Path, name: str, storage: Callable[[Path], TrialStorage], uri: str | None = None) -> Path:
    """A study with one told trial and one that runs."""
    folder = root / "studies" / f"{name}-{'0' * 16}"
    folder.mkdir(parents=True, exist_ok=True)
    trial_queue = TrialQueue(storage(folder), SEARCH, 0)
    trial_queue.new_trials()
    trial_queue.tell(0, TrialResult([1.5]))
    trial_queue.close()
    study = Study.model_validate({"name": name, "search": SEARCH.model_dump(), "execution": {"optuna_storage": uri}})
    (folder / "study.yaml").write_text(resolved_yaml(study))
    write_json(folder / "trials.json", [{"number": 0, "state": "complete", "stages": {}}])
    return folder


def journal(folder: Path) -> TrialStorage:
    return Journal(folder / "optuna.journal", folder.name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], OptunaPages]]:
    """Starts the pages of the store in ``tmp_path``."""
    started: list[OptunaPages] = []

    def start() -> OptunaPages:
        started.append(OptunaPages(tmp_path, LOOPBACK, free_port(0), copy_every_s=0.5))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


def summaries(server: OptunaPages) -> dict[str, int]:
    found = get(f"{server.address.removesuffix('/dashboard/')}/api/studies")["study_summaries"]
    return {study["study_name"]: study["study_id"] for study in found}


def trials(server: OptunaPages, study: int) -> list[tuple[str, Any]]:
    detail = get(f"{server.address.removesuffix('/dashboard/')}/api/studies/{study}?after=0")
    return [(trial["state"], trial.get("values")) for trial in detail["trials"]]


@pytest.mark.slow
def test_journals_and_a_database_are_shown_together_and_live(
    new_database: Callable[[], str],
    postgresql: Server,
    server: Callable[[], OptunaPages],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = new_database()
    monkeypatch.setenv(VARIABLE, uri)
    kept = add(tmp_path, "in-database", lambda folder: Database(uri, folder.name))
    add(tmp_path, "in-journal", journal)
    moved = add(tmp_path, "moved", journal)
    add(tmp_path, "moved", lambda folder: Database(uri, folder.name))
    # Of another store that uses the same database.
    add(tmp_path / "other", "elsewhere", lambda folder: Database(uri, folder.name))
    pages = server()
    shown = summaries(pages)
    both = f"{moved.name} (in the database)"
    assert sorted(shown) == sorted([kept.name, f"in-journal-{'0' * 16}", moved.name, both])
    for study in shown.values():
        assert trials(pages, study) == [("Complete", [1.5]), ("Running", None)]
    assert pages.page(moved.name) == f"{pages.address}studies/{shown[both]}"
    assert pages.page(kept.name) == f"{pages.address}studies/{shown[kept.name]}"

    later = add(tmp_path, "later", lambda folder: Database(uri, folder.name))
    trial_queue = TrialQueue(Database(uri, kept.name), SEARCH, 0)
    trial_queue.tell(1, TrialResult([2.5]))
    trial_queue.close()
    deadline = time.monotonic() + 120
    while later.name not in (now := summaries(pages)) or trials(pages, shown[kept.name])[1][0] != "Complete":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert now | shown == now, "a study keeps its page"


def test_nothing_can_be_written_and_a_database_without_tables_stays_so(
    new_database: Callable[[], str],
    postgresql: Server,
    server: Callable[[], OptunaPages],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = new_database()
    monkeypatch.setenv(VARIABLE, uri)
    add(tmp_path, "in-journal", journal)
    pages = server()
    assert len(summaries(pages)) == 1
    tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'"
    database = uri.rpartition("/")[2]
    assert postgresql.query(database, tables) == []

    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name))
    deadline = time.monotonic() + 120
    while folder.name not in (now := summaries(pages)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    study = now[folder.name]
    base = pages.address.removesuffix("/dashboard/")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(f"{base}/api/studies/{study}", method="DELETE"), timeout=30)
    owner = open_database(uri)
    assert owner is not None
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        owner.create_new_study([optuna.study.StudyDirection.MAXIMIZE])
    assert "read-only transaction" in str(caught.value.__cause__)
    owner.engine.dispose()
    assert postgresql.query(database, "SELECT count(*) FROM studies") == [1]


@pytest.mark.slow
def test_a_database_that_is_away_keeps_its_pages(
    new_database: Callable[[], str],
    postgresql: Server,
    server: Callable[[], OptunaPages],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    uri = new_database()
    monkeypatch.setenv(VARIABLE, uri)
    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name))
    pages = server()
    study = summaries(pages)[folder.name]
    seen = trials(pages, study)
    postgresql.stop()
    said = ""
    try:
        deadline = time.monotonic() + 120
        while "Optuna's database" not in (said := said + capfd.readouterr().err):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # It is asked in vain a few times more.
        time.sleep(2.5)
        assert (summaries(pages), trials(pages, study)) == ({folder.name: study}, seen)
    finally:
        postgresql.start()
    said += capfd.readouterr().err
    assert said.count("Optuna's database postgresql://***@127.0.0.1") == 1
    assert said.rstrip().endswith("; what it said before is shown meanwhile")
    assert "Traceback" not in said
    trial_queue = TrialQueue(Database(uri, folder.name), SEARCH, 0)
    trial_queue.tell(1, TrialResult([2.5]))
    trial_queue.close()
    deadline = time.monotonic() + 120
    while trials(pages, study)[1] != ("Complete", [2.5]):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_address_beside_a_study_serves_unless_its_password_was_taken_out(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str]
) -> None:
    uri = new_database()
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name), uri)
    assert PASSWORD not in (folder / "study.yaml").read_text()
    studies = StudyCopies(tmp_path)
    assert not studies.refresh()
    (hidden,) = hidden_databases(tmp_path)
    assert hidden.startswith("postgresql://***@127.0.0.1")
    # One without a password, as with a pgpass file, is complete.
    bare = f"postgresql://127.0.0.1:{postgresql.port}/{uri.rpartition('/')[2]}"
    study = Study.model_validate({"name": "study", "execution": {"optuna_storage": bare}})
    (folder / "study.yaml").write_text(resolved_yaml(study))
    monkeypatch.setenv("PGUSER", "calm")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert studies.refresh()
    assert optuna.get_all_study_names(studies.storage) == [folder.name]
    assert hidden_databases(tmp_path) == []
    studies.close()


def test_the_variable_that_is_named_shows_them(
    server: Callable[[], OptunaPages], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str]
) -> None:
    uri, store = new_database(), Store(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name), uri)

    def hint() -> re.Match[str] | None:
        servers = UiServers(store)
        servers.dashboard = server()
        found = re.search(r"more trials are in \S+: (\w+) with its password", "\n".join(study_lines(store, servers)))
        assert (found is None) == (folder.name in summaries(servers.dashboard))
        return found

    told = hint()
    assert told is not None
    monkeypatch.setenv(told[1], uri)
    assert hint() is None


@pytest.mark.parametrize("way", ["the address", "the variable"])
def test_a_study_goes_on_whose_address_the_store_keeps_without_a_password(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str]
) -> None:
    uri = new_database()
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name), uri)
    file = folder / "study.yaml"
    with pytest.raises(ConfigurationError) as refused:
        check_study(resolve_study(file))
    told = re.search(r"beside the file \((\S+)=ADDRESS\), or (\S+=null) for that of (\w+)$", str(refused.value))
    assert told is not None, refused.value
    if way == "the variable":
        monkeypatch.setenv(told[3], uri)
    study = resolve_study(file, [told[2] if way == "the variable" else f"{told[1]}={uri}"])
    check_study(study)
    storage = trial_storage(study.execution, folder, study.name)
    trials = optuna.load_study(study_name=storage.study_name, storage=storage.open()).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING"]
    storage.close()


@pytest.mark.extended
def test_the_command_shows_a_database_and_no_password(
    new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.tracking.client import connect

    uri = new_database()
    folder = add(tmp_path, "study", lambda folder: Database(uri, folder.name))
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("calm-bench")
    log = tmp_path / "ui.log"
    program = "from pipelines.app.cli import main; main()"
    environment = {**os.environ, VARIABLE: uri, "PYTHONUNBUFFERED": "1", "COLUMNS": "300"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "ui", "--store", str(tmp_path), "--port", str(free_port(0))],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while "Ctrl-C" not in (text := log.read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        (line,) = [line for line in text.splitlines() if line.strip().startswith(folder.name)]
        page = line.split()[-1]
        assert page.startswith(f"http://{LOOPBACK}:")
        base, _, study = page.partition("/dashboard/studies/")
        assert [trial["state"] for trial in get(f"{base}/api/studies/{study}?after=0")["trials"]] == [
            "Complete",
            "Running",
        ]
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        shown = text + " ".join(part for one in family for part in one.cmdline())
        assert not any(secret in shown for secret in (PASSWORD, quote(PASSWORD, safe="")))
        listening = {
            where.laddr.ip
            for one in family
            for where in one.net_connections("tcp")
            if where.status == psutil.CONN_LISTEN
        }
        assert listening == {LOOPBACK}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
