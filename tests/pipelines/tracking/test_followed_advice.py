"""What messages about MLflow advise helps: the command that they print is typed as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from calm_bench.config import LanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from pipelines.app.cli import app
from pipelines.app.ui_servers import UiServers
from pipelines.common.record_file import RecordError
from pipelines.execution.events import TrialFinished
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.scoring.evaluation_report import EvaluationReport
from pipelines.store.mlflow_record import MlflowRecord
from pipelines.store.provenance import ProvenanceRecord
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study, Tracking
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.address import TrackingError
from pipelines.tracking.client import connect, experiment_id
from pipelines.tracking.description import study_note, trial_note
from pipelines.tracking.evaluation import track_evaluation
from pipelines.tracking.listener import TrackingListener
from pipelines.tracking.registry import without_registry
from pipelines.tracking.rows import entries_from_mlflow
from pipelines.tracking.runs import _study_yaml
from pipelines.tracking.servers import LOOPBACK, free_port
from tests.pipelines.tracking.conftest import StudyWriter

COMMAND = re.compile(r"calm-bench (mlflow sync(?: (?!makes|writes|sends)[\w./-]+)*)")


def typed(*words: str) -> str:
    """What the command printed; it has to succeed."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "400"})
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return done.output


def advised(message: str) -> list[str]:
    """The words of the command in a message."""
    found = COMMAND.search(message)
    assert found is not None, message
    return shlex.split(found[1])


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def ended(make_outcome: Callable[..., TrialOutcome], tmp_path: Path) -> Callable[..., tuple[Store, Path, Any]]:
    """A store in which a study with these settings of ``tracking`` has ended, its folder and its last event."""

    def make(**tracking: Any) -> tuple[Store, Path, Any]:
        study = Study(name="k-ablation", tracking=Tracking(**tracking))
        outcome = make_outcome(study, 0, "token", {"model.kind": "token"}, range(3))
        writer = StudyWriter(tmp_path / "runs", study, "5f" * 8)
        writer.write(TrialFinished(outcome))
        (tmp_path / "stages").rename(tmp_path / "runs" / "stages")
        return Store(tmp_path / "runs"), writer.folder, TrialFinished(outcome)

    return make


def test_what_could_not_be_sent_is_sent_by_the_command(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "there"
    uri = f"sqlite:///{in_the_way / 'mlflow.db'}"
    in_the_way.write_text("no folder")
    store, folder, event = ended(uri=uri)
    said: list[str] = []
    listener = TrackingListener(Tracking(uri=uri), store, folder, said.append, interval_s=0.01, retry_interval_s=0.05)
    listener.handle(event)
    assert listener.close(60) is False
    in_the_way.unlink()
    in_the_way.mkdir()
    shutil.copy(empty_database, in_the_way / "mlflow.db")
    typed(*advised(said[-1]))
    assert len(connect(uri).search_runs(["1"])) == 2


def test_a_password_that_the_store_does_not_keep_is_given(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    store, *_ = ended(uri="http://somebody:secret@127.0.0.1:9")
    refused = CliRunner().invoke(app, ["mlflow", "sync", "--store", store.uri], env={"COLUMNS": "400"})
    assert refused.exit_code == 1
    told = refused.output + str(refused.exception)
    found = re.search(r"does not keep the password of http://\*\*\*@127\.0\.0\.1:9: give (--\w+)", told)
    assert found is not None, told
    shutil.copy(empty_database, tmp_path / "other.db")
    typed("mlflow", "sync", "--store", store.uri, found[1], f"sqlite:///{tmp_path / 'other.db'}")


def test_a_command_that_was_cut_off_goes_on(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "there"
    in_the_way.write_text("no folder")
    uri = f"sqlite:///{in_the_way / 'mlflow.db'}"
    store, *_ = ended(uri=uri)
    command = ["mlflow", "sync", "--store", store.uri]
    refused = CliRunner().invoke(app, [*command, "--uri", uri])
    assert str(refused.exception).endswith("The same command goes on where it stopped")
    in_the_way.unlink()
    in_the_way.mkdir()
    shutil.copy(empty_database, in_the_way / "mlflow.db")
    typed(*command, "--uri", uri)
    assert len(connect(uri).search_runs(["1"])) == 2


def test_pages_without_a_database_name_the_command_that_makes_it(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    store, *_ = ended()
    with UiServers(store, dashboard=False) as servers, pytest.raises(Exception, match="no MLflow database") as refused:
        servers.start(tmp_path)
    shutil.copy(empty_database, tmp_path / "prepared.db")
    command = advised(str(refused.value))
    assert command[-2:] == ["--store", store.uri]
    typed(*command)
    assert (store.root / "mlflow.db").is_file()


def test_another_experiment_than_a_deleted_one(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = connect(uri)
    client.delete_experiment(experiment_id(client, "mine", uri, tmp_path / "mlartifacts"))
    with pytest.raises(TrackingError, match=r"or name another \(tracking\.experiment\)"):
        experiment_id(client, "mine", uri, tmp_path / "mlartifacts")
    assert experiment_id(client, "another", uri, tmp_path / "mlartifacts")


def test_a_record_of_runs_that_is_damaged(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    store, folder, _ = ended()
    shutil.copy(empty_database, store.root / "mlflow.db")
    typed("mlflow", "sync", "--store", store.uri)
    written = MlflowRecord.load(folder)
    (folder / "mlflow.json").write_text("{")
    with pytest.raises(RecordError, match="remove it; calm-bench mlflow sync writes it anew") as refused:
        MlflowRecord.load(folder)
    (folder / "mlflow.json").unlink()
    typed(*advised(str(refused.value)), "--store", store.uri)
    assert MlflowRecord.load(folder) == written is not None


def test_an_experiment_that_is_misspelt(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    connect(uri).create_experiment("calm-bench")
    with pytest.raises(TrackingError, match=r"has no experiment 'calm-bnch'; did you mean '.+'") as refused:
        entries_from_mlflow(uri, "calm-bnch")
    assert entries_from_mlflow(uri, str(refused.value).split("'")[-2]) == []


def test_a_database_is_made_anew_without_what_is_named(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path
) -> None:
    """What is typed then stands in ``test_moved_store.py``."""
    store, *_ = ended()
    shutil.copy(empty_database, store.root / "mlflow.db")
    for more in (["k-ablation"], ["--uri", "sqlite:///other.db"]):
        command = ["mlflow", "sync", "--anew", "--store", store.uri, *more]
        refused = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
        assert str(refused.exception).endswith("give neither STUDY nor --uri")
        assert not list(store.root.glob("mlflow.before-*")), "nothing was set aside for it"


def test_rows_of_a_database_that_is_not_there(
    ended: Callable[..., tuple[Store, Path, Any]], empty_database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mine here.db'}"
    with pytest.raises(TrackingError) as refused:
        entries_from_mlflow(uri, "calm-bench")
    found = re.search(r"a study that is run with (tracking\.uri=.+) makes one", str(refused.value))
    assert found is not None, refused.value
    tracking = resolve_study("smoke", shlex.split(found[1])).tracking
    assert tracking.uri is not None
    store, *_ = ended(uri=tracking.uri)
    # Its tables take seconds to create.
    shutil.copy(empty_database, tmp_path / "mine here.db")
    typed("mlflow", "sync", "--store", store.uri)
    assert entries_from_mlflow(uri, "calm-bench") != []


def test_what_descriptions_say_can_be_typed(
    make_entry: Callable[..., Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = resolve_study("smoke", ["corpus.source=markov", "seed=7"])
    told = study_note(study, Leaderboard([make_entry()]), ProvenanceRecord())
    found = re.search(r"Download `(\S+)` from .*Then\s+calm-bench run (\S+)\n", told, re.DOTALL)
    assert found is not None, told
    monkeypatch.chdir(tmp_path)
    Path(found[1]).write_text(_study_yaml(study))
    assert resolve_study(found[2]) == study
    # A model that was never trained.
    config = LanguageModel(kind="token", hidden_size=16, intermediate_size=16, num_layers=1, num_attention_heads=2)
    build_language_model(config, 257, None, 0).save(tmp_path / "a model")
    ByteTokenizer().save(tmp_path / "a model" / "tokenizer")
    told = trial_note(make_entry(model_folder=str(tmp_path / "a model")))
    found = re.search(r"calm-bench (generate .+)", told)
    assert found is not None, told
    typed(*shlex.split(found[1]), "--tokens", "4")


def test_what_an_mlflow_does_not_take_is_not_asked_for() -> None:
    found = re.search(r"(tracking\.\S+=\w+) does not ask for it", without_registry("no such page"))
    assert found is not None
    assert resolve_study("smoke", [found[1]]).tracking.register_models is False


def test_scores_that_could_not_be_sent_are_printed(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    said: list[str] = []
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'nowhere' / 'mlflow.db'}")
    (tmp_path / "nowhere").write_text("in the way")
    assert track_evaluation(EvaluationReport("token", [], []), tmp_path, {}, tmp_path, said.append, tracking) is None
    found = re.search(r"(--\w+) prints all of them$", said[-1])
    assert found is not None, said
    command = typer.main.get_command(app).commands["eval"]  # type: ignore[attr-defined]
    assert found[1] in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.extended
def test_pages_on_a_port_that_is_taken(empty_database: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    StudyWriter(store.root, Study(name="k-ablation"), "5f" * 8)
    shutil.copy(empty_database, store.root / "mlflow.db")
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with UiServers(store, port, dashboard=False) as servers, pytest.raises(Exception, match="is taken") as refused:
            servers.start(tmp_path)
        assert str(refused.value) == f"port {port} is taken: give another --port, or none"
        for given in (free_port(port + 1), None):
            with UiServers(store, given, dashboard=False) as servers:
                servers.start(tmp_path)
                assert servers.mlflow.endswith(f":{given}" if given else "")
