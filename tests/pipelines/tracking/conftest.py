"""A small study whose trials succeed, fail and do not fit together, and what MLflow holds of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from calm_bench.atomic import write_json
from pipelines.execution.events import Event, StudyFinished, TrialFailed, TrialFinished, TrialStarted
from pipelines.store.study_record import resolved_yaml
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.client import connect


@pytest.fixture(autouse=True)
def no_tracking_server_of_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables take seconds to create: once is enough for the tests that are not about it."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def small_study() -> Callable[..., Study]:
    """Makes it: two kinds of model, one with two seeds, a task that is scored, one that does not exist, and a chunk
    size that does not fit. Keywords replace sections."""
    size = {"hidden_size": 16, "intermediate_size": 16}
    training = {
        "num_steps": 4,
        "batch_size": 4,
        "sequence_length": 32,
        "warmup_steps": 1,
        "log_every": 1,
        "validation_batches": 1,
    }
    models: dict[str, dict[str, Any]] = {
        "K=3": {"model.chunk_size": 3},
        "token": {"model.kind": "token"},
        "token again": {"model.kind": "token", "seed": 1},
        "no task": {"model.kind": "token", "benchmarks.tasks": ["no_such_task"]},
        "K=2": {"model.chunk_size": 2},
    }

    def make(**sections: Any) -> Study:
        description = {
            "name": "small",
            "description": "Whether MLflow holds what the files hold.",
            "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 200}},
            "autoencoder": {"latent_size": 8, **size, "training": training},
            "model": {
                **size,
                "num_layers": 1,
                "num_attention_heads": 2,
                "head": {"num_samples": 2, "num_targets": 4, "noise_size": 4, "num_blocks": 1},
                "training": training,
            },
            "evaluation": {"context_length": 32, "first_position": 8, "num_samples": 2},
            "samples": {"num_prompts": 2, "num_tokens": 12, "candidates": 8},
            "benchmarks": {"tasks": ["markov_choice"], "limit": 4, "num_samples": 2},
            "search": {"parameters": [{"name": "model", "choices": models}]},
            "execution": {"retries": 0},
        }
        return Study.model_validate(description | sections)

    return make


class StudyWriter:
    """Keeps the files of a study as its driver does, without running anything."""

    def __init__(self, root: Path, study: Study, identity: str) -> None:
        self.folder = root / "studies" / f"{study.name}-{identity}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "study.yaml").write_text(resolved_yaml(study))
        self._path = self.folder / "trials.json"

    def write(self, event: Event) -> None:
        """Bring ``trials.json`` up to date."""
        match event:
            case TrialStarted():
                stages = {stage.kind: stage.identity for stage in event.graph.stages}
                self._put(event.number, event.label, event.settings, "open", stages)
            case TrialFinished() | TrialFailed():
                outcomes: tuple[TrialOutcome, ...] = (event.outcome,)
            case StudyFinished():
                outcomes = event.outcomes
        if isinstance(event, TrialFinished | TrialFailed | StudyFinished):
            for one in outcomes:
                stages = {stage.kind: stage.identity for stage in one.graph.stages} if one.graph else {}
                self._put(one.number, one.label, one.settings, one.state, stages, one.error)

    def _put(
        self, number: int, label: str, settings: Any, state: str, stages: dict[str, str], error: str | None = None
    ) -> None:
        rows = json.loads(self._path.read_text()) if self._path.exists() else []
        row = {"number": number, "label": label, "settings": dict(settings), "state": state, "error": error}
        kept = [one for one in rows if one["number"] != number]
        rows = [*kept, row | {"values": [], "violations": [], "stages": stages}]
        write_json(self._path, sorted(rows, key=lambda one: int(one["number"])))


_BY_ARRIVAL = ("mlflow.user", "mlflow.modelVersions")
"""Tags that say who wrote a model, and in which order."""


def contents_of(uri: str, database: Path | None = None, experiment: str = "calm-bench") -> dict[str, Any]:
    """All that an experiment holds, by names instead of ids, which each tracking store makes up for itself.

    Args:
        database: where a server keeps it.
    """
    client = connect(uri)
    histories = _histories(database or Path(uri.removeprefix("sqlite:///")))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    keys = {run.info.run_id: f"{run.info.run_name} {run.data.tags.get('calm_bench.trial', '')}".strip() for run in runs}
    assert len(set(keys.values())) == len(keys), "two runs for one trial"
    contents: dict[str, Any] = {}
    for run in runs:
        run_id = run.info.run_id
        tags = {name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"}
        parent = run.data.tags.get("mlflow.parentRunId")
        inputs = [] if run.inputs is None else [used.dataset for used in run.inputs.dataset_inputs]
        contents[keys[run_id]] = {
            "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
            "parent": keys[parent] if parent else None,
            "tags": tags,
            "parameters": dict(run.data.params),
            "metrics": histories.get(run_id, {}),
            "data sets": [(one.name, one.digest, one.source, one.profile) for one in inputs],
            "models": [
                (
                    model.name,
                    model.model_type,
                    str(model.status),
                    dict(model.params or {}),
                    {name: value for name, value in model.tags.items() if name not in _BY_ARRIVAL},
                    sorted((metric.key, metric.value, metric.timestamp) for metric in model.metrics or []),
                )
                for model in client.search_logged_models([found.experiment_id], f"source_run_id = '{run_id}'")
            ],
            "artifacts": {
                path: Path(client.download_artifacts(run_id, path)).read_bytes() for path in _files(client, run_id)
            },
        }
    contents["registry"] = _registry(client, keys)
    return contents


def _registry(client: Any, keys: dict[str, str]) -> dict[str, Any]:
    """Registered models with their versions by run: a version's number says when its trial arrived."""
    found = {}
    for model in client.search_registered_models():
        versions = [one for one in client.search_model_versions(f"name = '{model.name}'") if one.run_id in keys]
        by_number = {str(one.version): keys[one.run_id] for one in versions}
        assert len(set(by_number.values())) == len(by_number), "two versions of one model"
        for one in versions:
            assert one.source == f"runs:/{one.run_id}/language_model"
        if versions:
            found[model.name] = {
                "description": model.description,
                "tags": dict(model.tags),
                "best": {alias: by_number[str(version)] for alias, version in model.aliases.items()},
                "versions": {keys[one.run_id]: (one.status, one.description, dict(one.tags)) for one in versions},
            }
    return found


def _histories(database: Path) -> dict[str, dict[str, list[tuple[int, int, float]]]]:
    """Step, time and value of every point by run and metric, in MLflow's order; its own way asks for each metric."""
    found: dict[str, dict[str, list[tuple[int, int, float]]]] = {}
    with closing(sqlite3.connect(database)) as connection:
        for run_id, name, *point in connection.execute(
            "SELECT run_uuid, key, step, timestamp, value FROM metrics ORDER BY key, timestamp, step, value"
        ):
            if not name.startswith("system/"):
                found.setdefault(run_id, {}).setdefault(name, []).append(tuple(point))
    return found


def _files(client: Any, run_id: str, folder: str | None = None) -> list[str]:
    paths: list[str] = []
    for file in client.list_artifacts(run_id, folder):
        paths += _files(client, run_id, file.path) if file.is_dir else [file.path]
    return sorted(paths)


@pytest.fixture(scope="session")
def mlflow_contents() -> Callable[..., dict[str, Any]]:
    """All that an experiment holds, comparable between tracking stores."""
    return contents_of
