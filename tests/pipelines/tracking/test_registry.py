"""Scored models as versions of a registered model."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import RestException

from pipelines.execution.events import TrialFinished
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.store import Store
from pipelines.study.config import Study, Tracking
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.client import connect
from pipelines.tracking.listener import TrackingListener
from pipelines.tracking.registry import BEST, registered_name
from tests.pipelines.tracking.conftest import StudyWriter

IDENTITY = "5f" * 8
STUDY = Study(name="k-ablation", description="Chunk sizes compared.")
NAME = f"calm-bench.k-ablation-{IDENTITY}"
MakeOutcome = Callable[..., TrialOutcome]


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def outcomes(make_outcome: MakeOutcome) -> list[TrialOutcome]:
    """Without lines of training: what is tested comes after it."""
    settings: list[tuple[str, dict[str, Any]]] = [("token", {"model.kind": "token"}), ("K=4", {"model.chunk_size": 4})]
    return [make_outcome(STUDY, number, *setting, range(0)) for number, setting in enumerate(settings)]


def told(store: Path, outcomes: list[TrialOutcome], study: Study, said: list[str], **options: Any) -> TrackingListener:
    """A listener that was told the end of the trials, and the files of the study."""
    files = StudyWriter(store, study, IDENTITY)
    board = Leaderboard(entry_from(outcome, study) for outcome in outcomes)
    (files.folder / "leaderboard.json").write_text(board.to_json())
    listener = TrackingListener(study.tracking, Store(store), files.folder, said.append, **options)
    for outcome in outcomes:
        files.write(TrialFinished(outcome))
        listener.handle(TrialFinished(outcome))
    return listener


def send(store: Path, outcomes: list[TrialOutcome], study: Study = STUDY, **tracking: Any) -> list[str]:
    """Have the ended trials of a study sent; what was said."""
    said: list[str] = []
    study = study.model_copy(update={"tracking": Tracking(**tracking)})
    assert told(store, outcomes, study, said).close(120), said
    return said


def client_of(store: Path) -> MlflowClient:
    return connect(f"sqlite:///{store.resolve() / 'mlflow.db'}")


def scored(outcome: TrialOutcome, **numbers: Any) -> TrialOutcome:
    """The same trial with other ``numbers``, evaluated anew: an hour later."""
    path = outcome.folders["evaluation"] / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["attempts"][-1]["started"] += 3600
    path.write_text(json.dumps(provenance))
    evaluation = {**outcome.results["evaluation"], **numbers}
    (outcome.folders["evaluation"] / "result.json").write_text(json.dumps(evaluation))
    return replace(outcome, results={**outcome.results, "evaluation": evaluation})


def versions(client: MlflowClient) -> dict[str, Any]:
    """By name of their run."""
    found = client.search_model_versions(f"name = '{NAME}'")
    by_name = {client.get_run(one.run_id or "").info.run_name: one for one in found}
    assert len(by_name) == len(found)
    return by_name


def best(client: MlflowClient) -> dict[str, str]:
    names = {str(one.version): name for name, one in versions(client).items()}
    return {alias: names[str(version)] for alias, version in client.get_registered_model(NAME).aliases.items()}


@pytest.mark.slow
def test_scored_models_are_versions_with_their_score(outcomes: list[TrialOutcome], store: Path) -> None:
    assert send(store, outcomes) == []
    client = client_of(store)
    model = client.get_registered_model(NAME)
    assert "Chunk sizes compared." in model.description
    assert model.tags == {"calm_bench.study": "k-ablation", "calm_bench.study_identity": IDENTITY}
    found = versions(client)
    assert set(found) == {"token", "K=4"}
    row, version = entry_from(outcomes[1], STUDY), found["K=4"]
    assert version.tags == {
        "model": "K=4",
        "brierlm": f"{row.brierlm:.4f}",
        "brierlm_error": f"{row.brierlm_se:.4f}",
        "k": "4",
        "head": "energy",
        "seed": "0",
        "protocol": row.protocol_hash,
    }
    assert found["token"].tags["head"] == "token"
    assert f"calm-bench generate {row.model_folder}" in version.description
    assert version.status == "READY"
    assert best(client) == {BEST: "token"}
    # What the version points at is there, and the logged model knows its version.
    source = client.get_model_version_download_uri(NAME, version.version)
    assert source == f"runs:/{version.run_id}/language_model"
    assert [file.path for file in client.list_artifacts(version.run_id, "language_model")] == [
        "language_model/MLmodel",
        "language_model/provenance.json",
        "language_model/reference.json",
    ]
    (logged,) = client.search_logged_models(["1"], f"source_run_id = '{version.run_id}'")
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": NAME, "version": int(version.version)}]


@pytest.mark.slow
def test_a_second_run_registers_nothing_twice_and_a_new_score_changes_the_version(
    outcomes: list[TrialOutcome], store: Path
) -> None:
    send(store, outcomes)
    client = client_of(store)
    before = versions(client)
    client.set_registered_model_alias(NAME, "mine", before["K=4"].version)
    send(store, outcomes)
    assert {name: vars(one) for name, one in versions(client).items()} == {
        name: vars(one) for name, one in before.items()
    }

    # Scored anew under another protocol: no row leads the other, and nobody's own alias is touched.
    token, chunks = outcomes
    send(store, [token, scored(chunks, brierlm=50.0, protocol_hash="bb" * 8)])
    after = versions(client)
    assert {name: one.version for name, one in after.items()} == {name: one.version for name, one in before.items()}
    assert after["K=4"].tags["brierlm"] == "50.0000"
    assert "BrierLM 50.00" in after["K=4"].description
    assert best(client) == {"best-aaaaaa": "token", "best-bbbbbb": "K=4", "mine": "K=4"}
    send(store, [token, scored(chunks, brierlm=50.0)])
    assert best(client) == {BEST: "K=4", "mine": "K=4"}


@pytest.mark.slow
def test_models_of_runs_that_were_written_before_are_registered(
    outcomes: list[TrialOutcome], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.tracking.study_files.WRITTEN_AS", 2)
        patch.setattr("pipelines.tracking.runs.WRITTEN_AS", 2)
        send(store, outcomes, register_models=False)
    send(store, outcomes)
    assert set(versions(client_of(store))) == {"token", "K=4"}
    assert best(client_of(store)) == {BEST: "token"}


@pytest.mark.slow
def test_a_version_whose_answer_was_lost_is_found_again(
    outcomes: list[TrialOutcome], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_model_version
    calls: list[str] = []

    def losing(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        created = create(self, *arguments, **options)
        calls.append(str(created.version))
        if len(calls) == 1:
            raise ConnectionError("the answer was lost")
        return created

    monkeypatch.setattr(MlflowClient, "create_model_version", losing)
    said: list[str] = []
    listener = told(store, outcomes[:1], STUDY, said, retry_interval_s=0.1)
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listener.close(120)
    assert ["the answer was lost" in told for told in said] == [True]
    assert calls == ["1"]
    assert list(versions(client_of(store))) == ["token"]


@pytest.mark.slow
def test_models_of_older_code_are_rows_no_more(outcomes: list[TrialOutcome], store: Path) -> None:
    from pipelines.study.stage import Stage, StageGraph

    send(store, outcomes)
    token, chunks = outcomes
    assert chunks.graph is not None
    last = chunks.graph["evaluation"]
    newer = Stage(last.kind, 2, last.config, last.inputs)
    shutil.copytree(chunks.folders["evaluation"], folder := Store(store).folder(newer))
    (folder / "config.json").write_text(json.dumps(newer.description()))
    graph = StageGraph((*chunks.graph.stages[:-1], newer))
    send(store, [token, replace(chunks, graph=graph)])
    client = client_of(store)

    def roles() -> list[str]:
        found = client.search_model_versions(f"name = '{NAME}'")
        return [one.tags.get("calm_bench.role", "") for one in sorted(found, key=lambda one: int(one.version))]

    assert roles() == ["", "former trial", ""]


@pytest.mark.slow
def test_an_mlflow_without_a_registry_has_all_the_rest(
    outcomes: list[TrialOutcome], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(self: MlflowClient, name: str, *arguments: Any) -> None:
        asked.append(name)
        raise RestException({"error_code": "FEATURE_DISABLED", "message": "no registry at http://me:secret@host"})

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_registered_model", refuse)
        (said,) = send(store, outcomes)
        found = re.search(r"tracking\.(\w+)=(false) does not ask for it$", said)
        assert found is not None, said
        # Followed, it is silent where the registry still refuses.
        assert send(store, outcomes, **{found[1]: yaml.safe_load(found[2])}) == []
    assert "has the runs of this study but registers none of its models" in said
    assert "secret" not in said
    assert asked == [NAME]
    client = client_of(store)
    assert [run.info.status for run in client.search_runs(["1"])] == ["FINISHED"] * 3
    assert client.search_registered_models() == []


@pytest.mark.slow
def test_nothing_is_registered_where_it_is_not_wanted(outcomes: list[TrialOutcome], store: Path) -> None:
    assert send(store, outcomes, register_models=False) == []
    assert client_of(store).search_registered_models() == []


def test_a_name_is_one_that_mlflow_takes() -> None:
    assert registered_name("calm-bench", "k-ablation", IDENTITY) == NAME
    long = registered_name("/Users/it's me:" * 40, "k-ablation", IDENTITY)
    assert len(long) == 250
    assert long.startswith("_Users_it_s me_")
    assert long.endswith(f".k-ablation-{IDENTITY}")
