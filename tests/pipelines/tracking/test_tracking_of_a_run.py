"""A real study with a real tracking server that is killed in its middle and comes back."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.execution.events import Event, Listeners, StageFinished, TrialFailed, TrialFinished
from pipelines.execution.local_executor import LocalExecutor
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard, load_board
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study, Tracking
from pipelines.tracking.listener import TrackingListener
from pipelines.tracking.rows import entries_from_mlflow
from pipelines.tracking.servers import MlflowServer, free_port
from pipelines.tracking.sync import sync_study

Contents = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.extended


@dataclass
class Run:
    """A finished study and its listeners."""

    store: Path
    folder: Path
    server: str
    """Address of the server that was killed meanwhile."""
    database: str
    """Address of a database that nothing disturbed."""
    half: Path
    """That file as it was in the middle of the study."""
    contents: dict[str, Any]
    """Of that file, all of it."""
    said: list[str]
    finished_while_away: int
    """Stages."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def run(
    small_study: Callable[..., Study],
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_contents: Contents,
) -> Iterator[Run]:
    """The study, run to its end while its tracking server is killed after the first trial and restarted before the
    last one; beside it MLflow in a file."""
    root = tmp_path_factory.mktemp("tracked")
    store = Store(root / "store")
    for name in ("server.db", "undisturbed.db"):
        shutil.copy(empty_database, root / name)
    database = f"sqlite:///{root / 'undisturbed.db'}"
    port = free_port(0)
    backend = f"sqlite:///{root / 'server.db'}"
    study = small_study(tracking={"uri": f"http://127.0.0.1:{port}"})
    folder = study_folder(study, store)
    servers = [MlflowServer(backend, root / "server-artifacts", port, root / "first.log")]
    said: list[str] = []
    ended: list[int] = []
    away: list[Event] = []

    class Disturber:
        """Hears everything after the listeners, and holds the driver where a moment has to last."""

        def handle(self, event: Event) -> None:
            if isinstance(event, StageFinished) and len(servers) == 1 and ended:
                away.append(event)
            if not isinstance(event, TrialFinished | TrialFailed):
                return
            ended.append(event.outcome.number)
            if len(ended) == 2:
                # The first one does not fit together and ends at once; this is the first that was trained.
                wait_for((folder / "mlflow.json").exists, "the first sync")
                time.sleep(0.5)
                with sqlite3.connect(root / "undisturbed.db") as source, sqlite3.connect(root / "half.db") as copy:
                    source.backup(copy)
                servers[0].stop(signal.SIGKILL)
            elif len(ended) == 4:
                # The others may have ended before anything was sent to the server that is gone.
                wait_for(lambda: bool(said), "the server is missed")
                servers.append(MlflowServer(backend, root / "server-artifacts", port, root / "second.log"))
                servers[1].wait()
                wait_for(lambda: len(said) > 1, "the sync goes on by itself")

    try:
        servers[0].wait()
        options: dict[str, Any] = {"interval_s": 0.1}
        listeners = [
            # A server that was not there is looked for at every flush: what it missed must not wait for a retry.
            TrackingListener(study.tracking, store, folder, said.append, **options, retry_interval_s=600.0),
            TrackingListener(Tracking(uri=database), store, folder, said.append, **options, retry_interval_s=0.2),
        ]
        executor = LocalExecutor(store, "cpu")
        outcomes = run_study(study, store, executor, Listeners([*listeners, Disturber()]))
        executor.close()
        board = Leaderboard(entry_from(outcome, study) for outcome in outcomes if outcome.state == "complete")
        write_leaderboard(board, folder)
        assert [listener.close(120) for listener in listeners] == [True, True]
        states = [outcome.state for outcome in outcomes]
        assert [states.count(state) for state in ("complete", "failed", "invalid")] == [3, 1, 1]
        contents = mlflow_contents(database)
        half = root / "half.db"
        yield Run(store.root, folder, study.tracking.uri or "", database, half, contents, said, len(away))
    finally:
        for server in servers:
            server.stop()


def test_a_server_that_was_killed_and_came_back_has_every_metric_once_and_in_order(
    run: Run, mlflow_contents: Contents
) -> None:
    assert run.finished_while_away >= 4
    away, back = run.said
    assert f"{run.server} could not be written" in away
    assert f"{run.server} answers again" in back
    after = mlflow_contents(run.server, Path(run.database.removeprefix("sqlite:///")).with_name("server.db"))
    assert after == run.contents
    steps = [point[0] for point in after[trial(after, "K=2")]["metrics"]["train/loss"]]
    assert steps == [1, 2, 3, 4]
    registry = after.pop("registry")
    assert {name: len(found["metrics"].get("train/loss", [])) for name, found in after.items()} == {
        name: 0 if "K=3" in name or name == "small" else 4 for name in after
    }
    # Every scored model once, whether its trial ended before, during or after the absence.
    (models,) = registry.values()
    scored = [name for name, found in after.items() if "brierlm" in found["metrics"]]
    assert sorted(models["versions"]) == sorted(scored)
    assert len(scored) == 3
    (group,) = Leaderboard.from_json((run.folder / "leaderboard.json").read_text()).groups
    row = group.entries[0]
    assert models["best"] == {"best": trial(after, f"{row.label} {row.trial}/")}
    # One of them wrote long enough to have a speed.
    assert any("cost/generated_tokens_per_second" in found["metrics"] for found in after.values())


def trial(contents: dict[str, Any], label: str) -> str:
    (found,) = [name for name in contents if name.startswith(label)]
    return found


def test_mlflow_is_filled_again_from_the_files_and_a_second_time_changes_nothing(
    run: Run, mlflow_contents: Contents, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "again.db")
    again = f"sqlite:///{tmp_path / 'again.db'}"
    result = CliRunner().invoke(app, ["mlflow", "sync", "small", "--store", str(run.store), "--uri", again])
    assert result.exit_code == 0, result.output
    assert "5 trials sent to sqlite:///" in " ".join(result.output.split())
    assert mlflow_contents(again) == run.contents
    before = (tmp_path / "again.db").read_bytes()
    result = CliRunner().invoke(app, ["mlflow", "sync", "--store", str(run.store), "--uri", again])
    assert "already all in" in " ".join(result.output.split())
    assert (tmp_path / "again.db").read_bytes() == before

    # What arrived in half of a study is completed, and only that.
    shutil.copy(run.half, tmp_path / "half.db")
    half = f"sqlite:///{tmp_path / 'half.db'}"
    assert mlflow_contents(half) != run.contents
    assert sync_study(Store(run.store), run.folder, half).problem is None
    assert mlflow_contents(half) == run.contents


def test_the_leaderboard_from_mlflow_is_that_from_the_files(run: Run, empty_database: Path, tmp_path: Path) -> None:
    whole = load_board(run.folder)
    assert whole is not None
    assert Leaderboard(entries_from_mlflow(run.server, "calm-bench")).to_json() == whole.to_json()

    # Of another experiment too, where a study is tracked a second time.
    shutil.copy(empty_database, tmp_path / "two.db")
    two = f"sqlite:///{tmp_path / 'two.db'}"
    store = Store(run.store)
    for experiment in ("first", "second"):
        assert sync_study(store, run.folder, two, experiment).problem is None
    for form in ("json", "csv", "md"):
        for pooling in ("--pool", "--every-seed"):
            printed = [
                CliRunner().invoke(app, ["leaderboard", "--format", form, pooling, *source]).stdout
                for source in (
                    ["--store", str(run.store)],
                    ["--mlflow", run.server],
                    ["--mlflow", two, "--experiment", "first", "--experiment", "second"],
                )
            ]
            assert printed[0] == printed[1] == printed[2]
            assert "markov_choice" in printed[0].replace("\\", "")


def test_a_server_that_was_never_there_costs_nothing_but_a_warning(
    small_study: Callable[..., Study],
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_contents: Contents,
) -> None:
    import yaml

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port(0)}")
    study = small_study(search={"parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}}}]})
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude={"tracking", "execution"})))
    result = CliRunner().invoke(app, ["run", str(path), "--local", "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    told = " ".join((result.output + result.stderr).split())
    assert "could not be written" in told
    assert "calm-bench mlflow sync small" in told
    assert "secret" not in told
    shutil.copy(empty_database, tmp_path / "later.db")
    later = f"sqlite:///{tmp_path / 'later.db'}"
    store = Store(tmp_path / "store")
    (folder,) = store.studies.folders()
    assert sync_study(store, folder, later).problem is None
    found = mlflow_contents(later)
    assert [step for step, _, _ in found[trial(found, "token")]["metrics"]["train/loss"]] == [1, 2, 3, 4]
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
