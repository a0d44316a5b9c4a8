"""Several drivers, one database: every trial asked once and complete, whoever dies, with the journal's results."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from calm_bench.problems import ConfigurationError
from pipelines.app.cli import main
from pipelines.app.doctor import Finding, examine
from pipelines.search.postgresql import PostgresqlError
from pipelines.search.trial_queue import TrialQueue, TrialRequest, TrialResult
from pipelines.search.trial_storage import Database, Journal, TrialStorage, trial_storage
from pipelines.study.config import Execution
from pipelines.study.search_settings import Search
from tests.deploy.conftest import PASSWORD, Server

NewDatabase = Callable[[], str]

RANGES: list[dict[str, Any]] = [
    {"name": "x", "low": 0.0, "high": 1.0},
    {"name": "rate", "low": 1e-4, "high": 1e-2, "log": True},
    {"name": "n", "low": 1, "high": 9, "integer": True},
    {"name": "head", "values": ["energy", "flow", 3]},
]
TWO = [{"metric": "brierlm"}, {"metric": "training_flops", "direction": "minimize"}]
SEARCHES = {
    "grid": Search.model_validate(
        {"parameters": [{"name": "seed", "values": [0, 1, 2]}, {"name": "K", "values": [1, "two"]}]}
    ),
    "random": Search.model_validate({"sampler": "random", "num_trials": 10, "parameters": RANGES}),
    "tpe": Search.model_validate(
        {"sampler": "tpe", "num_trials": 12, "concurrent_trials": 3, "parameters": RANGES, "objectives": TWO}
    ),
}


def _told(asked: TrialRequest, search: Search) -> TrialResult:
    """An outcome that depends on the trial alone: mostly a score, now and then a failure."""
    stream = random.Random(repr(sorted(asked.point.items())))
    if search.sampler != "tpe" and asked.number % 4 == 3:
        return TrialResult(
            error="it broke" + chr(0), pruned=asked.number % 8 == 3, rungs={1: stream.random(), 2: 1 / 3}
        )
    values = [stream.random() for _ in search.objectives]
    rungs = {1: values[0]} if len(values) == 1 else {}
    return TrialResult(values, constraints={"autoencoder_accuracy >= 0.999": stream.random() - 0.5}, rungs=rungs)


def _play(trial_queue: TrialQueue, search: Search, order: random.Random) -> list[TrialRequest]:
    """Tell all trials in a random order; what this driver was given."""
    seen = list(trial_queue.new_trials())
    waiting = [asked for asked in seen if asked.state == "open"]
    while waiting:
        asked = waiting.pop(order.randrange(len(waiting)))
        trial_queue.tell(asked.number, _told(asked, search))
        new = trial_queue.new_trials()
        seen += new
        waiting += [asked for asked in new if asked.state == "open"]
    return seen


def _outcome(storage: TrialStorage, search: Search) -> list[dict[str, Any]]:
    """Everything that is kept of a study's trials, but when."""
    trial_queue = TrialQueue(storage, search, seed=1)
    try:
        return [
            {
                "number": trial.number,
                "state": trial.state.name,
                "params": trial.params,
                "values": trial.values,
                "constraints": trial.constraints,
                "user": trial.user_attrs,
                "rungs": trial.intermediate_values,
            }
            for trial in optuna.load_study(study_name=storage.study_name, storage=storage.open()).trials
        ]
    finally:
        trial_queue.close()


@pytest.mark.parametrize("sampler", SEARCHES)
def test_a_study_in_the_database_is_the_one_in_the_journal(
    sampler: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    search, uri = SEARCHES[sampler], new_database()
    storages: list[Callable[[], TrialStorage]] = [
        lambda: Journal(tmp_path / "journal", "study"),
        lambda: Database(uri, "study"),
    ]
    given, kept = [], []
    for number, storage in enumerate(storages):
        trial_queue = TrialQueue(storage(), search, seed=1)
        given.append(sorted(_play(trial_queue, search, random.Random(number)), key=lambda asked: asked.number))
        trial_queue.close()
        again = TrialQueue(storage(), search, seed=1, retry_failed=True)
        given[-1] += sorted(_play(again, search, random.Random(number)), key=lambda asked: asked.number)
        again.close()
        kept.append(_outcome(storage(), search))
    assert given[0] == given[1]
    assert kept[0] == kept[1]
    assert len(kept[0]) >= len({str(trial["params"]) for trial in kept[0]}) > 5


@pytest.mark.slow
def test_drivers_at_once_ask_every_trial_once(new_database: NewDatabase, postgresql: Server, tmp_path: Path) -> None:
    """Three drivers of one study and two of another, all of which find an empty database."""
    uri, search = new_database(), SEARCHES["tpe"]
    alone = TrialQueue(Journal(tmp_path / "journal", "study"), search, seed=1)
    expected = {asked.number: asked.point for asked in _play(alone, search, random.Random(0))}
    seen: dict[str, list[TrialRequest]] = {}
    errors: list[BaseException] = []
    together = threading.Barrier(5)

    def drive(study: str, driver: int) -> None:
        try:
            together.wait()
            trial_queue = TrialQueue(Database(uri, study), search, seed=1)
            seen[f"{study} {driver}"] = _play(trial_queue, search, random.Random(driver))
            trial_queue.close()
        except BaseException as error:
            errors.append(error)

    drivers = [
        threading.Thread(target=drive, args=(study, driver))
        for study, driver in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5))
    ]
    for thread in drivers:
        thread.start()
    for thread in drivers:
        thread.join(120)
    assert errors == []
    for study in ("a", "b"):
        storage = Database(uri, study)
        trials = TrialQueue(storage, search, seed=1).new_trials()
        assert {asked.number: asked.point for asked in trials} == expected
        assert {asked.state for asked in trials} == {"complete"}
        storage.close()
    for given in seen.values():
        assert all(asked.point == expected[asked.number] for asked in given), "no trial is seen before it is whole"
    database = uri.rpartition("/")[2]
    assert postgresql.query(database, "SELECT count(*) FROM trials") == [2 * len(expected)]
    assert postgresql.query(database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [0]


def test_a_driver_that_died_while_asking_leaves_no_half_trial(new_database: NewDatabase) -> None:
    uri, search = new_database(), SEARCHES["random"]
    living = TrialQueue(Database(uri, "study"), search, seed=1)
    whole = {asked.number: asked.point for asked in living.new_trials()}
    longer = search.model_copy(update={"num_trials": 12})
    dying = Database(uri, "study")
    study = optuna.load_study(study_name="study", storage=dying.open())
    study.ask()
    dying.close()
    follower = TrialQueue(Database(uri, "study"), longer, seed=1)
    found = {asked.number: asked.point for asked in follower.new_trials()}
    assert len(found) == 12
    assert {number: found[number] for number in whole} == whole
    assert all(set(point) == {"x", "rate", "n", "head"} for point in found.values())
    living.close()
    follower.close()


def test_a_connection_lost_under_the_lock(new_database: NewDatabase, postgresql: Server) -> None:
    """The step is done again on a new connection, and whoever lost the lock has written nothing since."""
    uri = new_database()
    storage = Database(uri, "study", patience_s=60)
    backend = storage.open()
    storage.exclusively(lambda: optuna.create_study(storage=backend, study_name="study", load_if_exists=True))
    tries = 0

    def ask() -> int:
        nonlocal tries
        tries += 1
        study = optuna.load_study(study_name="study", storage=backend)
        if tries == 1:
            holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert postgresql.query(uri.rpartition("/")[2], holders) == [True]
        # Optuna repeats this statement by itself, five times, on whatever connection it gets.
        backend.create_new_trial(study._study_id)
        return len(study.get_trials())

    assert storage.exclusively(ask) == 1
    assert tries == 2
    storage.close()


@pytest.mark.slow
def test_a_database_that_is_restarted(
    new_database: NewDatabase, postgresql: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    search = SEARCHES["random"]
    trial_queue = TrialQueue(Database(new_database(), "study", patience_s=60), search, seed=1)
    trials = trial_queue.new_trials()
    postgresql.stop()
    starter = threading.Timer(3, postgresql.start)
    starter.start()
    trial_queue.tell(0, TrialResult([0.5]))
    starter.join()
    assert [asked.number for asked in trials] == list(range(10))
    assert trial_queue.new_trials() == []
    assert "is away; the study waits for it" in capsys.readouterr().err
    trial_queue.close()


def test_what_is_said_of_a_database_that_cannot_be_used(
    new_database: NewDatabase, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_database()
    refused = {
        "password authentication failed": postgresql.uri("postgres", "wrong/secret"),
        "does not exist": postgresql.uri("nowhere", PASSWORD),
        "onnection refused": uri.replace(f":{postgresql.port}/", ":1/"),
    }
    for said, address in refused.items():
        with pytest.raises(PostgresqlError, match=said) as caught:
            Database(address, "study").open()
        assert "postgresql://***@127.0.0.1" in str(caught.value)
        assert "wrong" not in str(caught.value)
        assert "pass" not in str(caught.value).replace("password authentication failed", "")

    with pytest.raises(PostgresqlError, match=r"needs the package psycopg2: pip install 'psycopg2-binary'"):
        Database(uri.replace("postgresql:", "postgresql+psycopg2:"), "study")

    monkeypatch.delenv("CALM_BENCH_OPTUNA_STORAGE", raising=False)
    assert isinstance(trial_storage(Execution(), tmp_path, "study"), Journal)
    assert isinstance(trial_storage(Execution(optuna_storage=uri), tmp_path, "study"), Database)
    monkeypatch.setenv("CALM_BENCH_OPTUNA_STORAGE", "sqlite:///x?password=hunter2")
    with pytest.raises(
        ConfigurationError, match="CALM_BENCH_OPTUNA_STORAGE: drivers can share PostgreSQL"
    ) as caught_too:
        trial_storage(Execution(), tmp_path, "study")
    assert "hunter2" not in str(caught_too.value)
    assert isinstance(trial_storage(Execution(optuna_storage=uri), tmp_path, "study"), Database)


def test_a_database_is_one_by_whatever_address(new_database: NewDatabase, tmp_path: Path) -> None:
    address = new_database()
    places = [
        Database(each, "a").place() for each in (address, address.replace("127.0.0.1", "localhost"), new_database())
    ]
    assert places[0] == places[1] != places[2]
    assert Journal(tmp_path / "journal", "a").place() is None


def test_the_tables_of_another_program_are_left_alone(new_database: NewDatabase, postgresql: Server) -> None:
    uri = new_database()
    database = uri.rpartition("/")[2]
    postgresql.query(database, "CREATE TABLE alembic_version (version_num text); SELECT 1")
    with pytest.raises(PostgresqlError, match="give Optuna a database of its own"):
        Database(uri, "study").open()
    assert postgresql.query(
        database, "SELECT table_name FROM information_schema.tables WHERE table_schema='public'"
    ) == ["alembic_version"]


@pytest.mark.slow
def test_the_command_and_the_doctor_say_what_is_wrong_without_the_password(
    new_database: NewDatabase,
    postgresql: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("CALM_BENCH_OPTUNA_STORAGE", raising=False)
    wrong = postgresql.uri("postgres", "hunter/2")
    setting = f"execution.optuna_storage={wrong}"
    store = tmp_path / "store"
    monkeypatch.setattr(
        "sys.argv", ["calm-bench", "run", "smoke", "--store", str(store), setting, "tracking.enabled=false"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == 1
    assert "calm-bench: Optuna's database postgresql://***@127.0.0.1" in said
    texts = [said, *(path.read_text(errors="replace") for path in store.rglob("*") if path.is_file())]
    assert not any("hunter" in text for text in texts)

    def doctor() -> Finding:
        return next(found for found in examine(store) if found.topic == "optuna")

    assert (doctor().level, doctor().text) == ("ok", "trials in a journal in the store")
    monkeypatch.setenv("CALM_BENCH_OPTUNA_STORAGE", new_database())
    assert (doctor().level, doctor().text.startswith("postgresql://***@127.0.0.1")) == ("ok", True)
    monkeypatch.setenv("CALM_BENCH_OPTUNA_STORAGE", wrong)
    assert doctor().level == "error"
    assert "hunter" not in doctor().text
