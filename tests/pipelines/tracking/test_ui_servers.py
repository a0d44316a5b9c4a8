from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from calm_bench.atomic import write_json
from calm_bench.overrides import ConfigurationError
from pipelines.app.ui_servers import UiServers
from pipelines.search.study_queue import StudyQueue
from pipelines.search.trial_queue import TrialQueue, TrialResult
from pipelines.search.trial_storage import Journal
from pipelines.store.store import Store
from pipelines.store.study_record import resolved_yaml
from pipelines.study.config import Study
from pipelines.study.search_settings import Search
from pipelines.tracking.client import connect
from pipelines.tracking.servers import LOOPBACK, free_port
from tests.hostile_folder import litter

RUN = "from pipelines.app.cli import main; main()"
SEARCH = {"parameters": [{"name": "seed", "values": [0, 1]}]}

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard, of the extra ui, is not installed")


@pytest.fixture
def store(tmp_path: Path, small_study: Callable[..., Study]) -> Store:
    """Two studies with a told trial each, without the trainings."""
    store = Store(tmp_path / "store")
    for name in ("first", "second"):
        study = small_study(name=name, search=SEARCH)
        folder = store.root / "studies" / f"{name}-{'0' * 16}"
        trial_queue = TrialQueue(Journal(folder / "optuna.journal", name), Search.model_validate(SEARCH), 0)
        trial_queue.tell(0, TrialResult([1.5]))
        trial_queue.close()
        (folder / "study.yaml").write_text(resolved_yaml(study))
        write_json(folder / "trials.json", [{"number": 0, "state": "complete", "stages": {}}])
    return store


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


def test_the_dashboard_shows_all_studies_live_and_changes_none(store: Store) -> None:
    from pipelines.tracking.optuna_pages import OptunaPages

    journals = sorted((store.root / "studies").glob("*/optuna.journal"))
    before = [path.read_bytes() for path in journals]
    server = OptunaPages(store.root, LOOPBACK, free_port(0), copy_every_s=0.1)
    try:
        base = server.address.removesuffix("/dashboard/")
        studies = {found["study_name"]: found["study_id"] for found in get(f"{base}/api/studies")["study_summaries"]}
        assert list(studies) == [path.parent.name for path in journals]
        detail = get(f"{base}/api/studies/{studies[journals[1].parent.name]}?after=0")
        assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Running"]
        assert detail["trials"][0]["values"] == [1.5]
        assert detail["objective_names"] == ["brierlm"]
        request = urllib.request.Request(f"{base}/api/studies/1", method="DELETE")
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(request, timeout=30)
        assert [path.read_bytes() for path in journals] == before
        assert server.page(journals[0].parent.name) == f"{base}/dashboard/studies/{studies[journals[0].parent.name]}"
        assert server.page("none") is None

        # The search goes on, another study begins before it in the alphabet, and each keeps its page.
        trial_queue = TrialQueue(Journal(journals[1], "second"), Search.model_validate(SEARCH), 0)
        trial_queue.tell(1, TrialResult([2.5]))
        trial_queue.close()
        shutil.copytree(journals[0].parent, journals[0].parent.with_name(f"earlier-{'0' * 16}"))
        deadline = time.monotonic() + 120
        while len(now := get(f"{base}/api/studies")["study_summaries"]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert {one["study_name"]: one["study_id"] for one in now}.items() >= studies.items()
        detail = get(f"{base}/api/studies/{studies[journals[1].parent.name]}?after=0")
        assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Complete"]
    finally:
        server.stop()


def test_every_search_of_a_study_has_its_page(store: Store, small_study: Callable[..., Study]) -> None:
    from pipelines.tracking.optuna_pages import StudyCopies

    search = {"parameters": [*SEARCH["parameters"], {"name": "model.kind", "values": ["token", "calm"]}]}
    study = small_study(name="third", search=search | {"each": ["model.kind"]})
    folder = store.root / "studies" / f"third-{'0' * 16}"
    queue = StudyQueue(Journal(folder / "optuna.journal", "third"), study)
    queue.close()
    (folder / "study.yaml").write_text(resolved_yaml(study))
    write_json(folder / "trials.json", [{"number": 0, "state": "open", "stages": {}}])
    copies = StudyCopies(store.root)
    copies.refresh()
    names = {found.study_name for found in copies.storage.get_all_studies()}
    assert {name.partition("third-0000000000000000")[2] for name in names if name.startswith("third")} == {
        " / kind=token",
        " / kind=calm",
    }


def test_a_damaged_journal_takes_its_own_pages_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.tracking.optuna_pages import StudyCopies

    damaged, other = sorted((store.root / "studies").glob("*/optuna.journal"))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"\0" * 512 + b"\n" + whole)
    copies = StudyCopies(store.root)

    def trials() -> dict[str, int]:
        copies.refresh()
        return {one.study_name: one.n_trials for one in optuna.get_all_study_summaries(copies.storage)}

    assert trials() == {other.parent.name: 2}
    assert not copies.refresh()
    assert f"trials of {damaged.parent.name} cannot be read" in capsys.readouterr().err
    damaged.write_bytes(whole)
    before = trials()
    assert before.keys() == {damaged.parent.name, other.parent.name}
    # What was read before stays.
    damaged.write_bytes(whole + b"\0" * 512 + b"\n" + whole)
    assert trials() == before
    assert "what it said before is shown meanwhile" in capsys.readouterr().err


def test_what_is_missing_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with UiServers(Store(tmp_path / "none")) as servers, pytest.raises(ConfigurationError, match="no study has run"):
        servers.start(tmp_path)
    with (
        UiServers(store, dashboard=False) as servers,
        pytest.raises(ConfigurationError, match=r"no MLflow database .*mlflow\.db: calm-bench mlflow sync --store"),
    ):
        servers.start(tmp_path)


@pytest.mark.extended
def test_without_optuna_dashboard_mlflow_is_shown_and_ends_with_a_command_that_is_killed(
    store: Store, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, store.root / "mlflow.db")
    program = "import sys; sys.modules['optuna_dashboard'] = None; from pipelines.app.cli import main; main()"
    # As the command does it, which does not look where it was started; nor does the server.
    program = f"import sys; sys.path.remove(''); {program}"
    with ui(store.root, tmp_path / "ui.log", program, litter(tmp_path / "here")) as (process, text):
        assert "pip install optuna-dashboard" in text
        assert "pip install -e '.[ui]'" in text
        (mlflow,) = [line.split()[1] for line in text.splitlines() if line.startswith("MLflow  ")]
        with urllib.request.urlopen(mlflow, timeout=30) as page:
            assert b"MLflow" in page.read()
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        # Which nobody hears; whoever ends it otherwise is in the next test.
        process.kill()
        process.wait(60)
        _, left = psutil.wait_procs(started, timeout=60)
        assert not left, "MLflow's server goes with the command"


@pytest.mark.slow
def test_both_answer_and_nothing_is_left_behind(store: Store, empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, store.root / "mlflow.db")
    connect(f"sqlite:///{store.root / 'mlflow.db'}").create_experiment("calm-bench")
    with ui(store.root, tmp_path / "ui.log") as (process, text):
        told = dict(line.split()[:2] for line in text.splitlines() if "http" in line)
        mlflow, dashboard = told["MLflow"], told["optuna-dashboard"]
        with urllib.request.urlopen(mlflow, timeout=30) as page:
            assert b"MLflow" in page.read()
        experiments = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=10"
        assert "calm-bench" in {found["name"] for found in get(experiments)["experiments"]}
        assert len(get(dashboard.replace("/dashboard/", "/api/studies"))["study_summaries"]) == 2
        assert f"first-{'0' * 16}   1 complete" in text
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        listening = {where.laddr.ip for one in (psutil.Process(process.pid), *started) for where in listeners(one)}
        assert listening == {LOOPBACK}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, (tmp_path / "ui.log").read_text()
        assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def ui(
    store: Path, log: Path, program: str = RUN, here: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command in a process of its own, and what it has said when all is there."""
    command = [sys.executable, "-c", program, "ui", "--store", str(store), "--port", str(free_port(0))]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=here,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            # Where the tests run in the background of a shell, they ignore Ctrl-C and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        deadline = time.monotonic() + 300
        while "Ctrl-C" not in (text := log.read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        yield process, text
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def listeners(process: psutil.Process) -> list[Any]:
    return [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
