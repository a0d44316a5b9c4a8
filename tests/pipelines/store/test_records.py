"""The files that more than one place reads: what is written is read back, and what is damaged or newer is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from calm_bench.atomic import write_json
from calm_bench.problems import ConfigurationError
from pipelines.common.record_file import RecordError
from pipelines.monitor.recording import read_record
from pipelines.report.collect import collect, study_folders
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, load_board
from pipelines.scoring.models import find_model
from pipelines.store.estimate_record import (
    ESTIMATE_FILE,
    ComparedTime,
    EstimateRecord,
    StageTime,
    planned_seconds,
)
from pipelines.store.inventory import stored_stages
from pipelines.store.layout import LEADERBOARD_FILE, PROGRESS
from pipelines.store.metrics_log import MetricsTail, read_lines
from pipelines.store.mlflow_record import MlflowRecord
from pipelines.store.provenance import (
    ProvenanceRecord,
    add_attempt,
    provenance,
    read_attempts,
    write_provenance,
)
from pipelines.store.refs import StageRef, StudyRef
from pipelines.store.store import Store
from pipelines.store.study_record import STUDY_FILE, StudyRecord, load_study, save_study
from pipelines.store.trial_record import TRIALS_FILE, TrialRecord, has_begun, load_trials, refs_of, save_trials
from pipelines.study.catalogue import resolve_study
from pipelines.study.stage_folder import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    RESULT_FILE,
    StageRecord,
    is_finished,
    read_result,
    write_description,
    write_result,
)

KEPT = Path(__file__).parent / "kept"
"""A store as the version before these records wrote it, without weights, texts and pictures: what was left of
``calm-bench run smoke --local autoencoder.training.num_steps=20 model.training.num_flops=2e9 evaluation.max_windows=8
samples.num_prompts=0 tracking.enabled=false``."""
STUDY = "smoke-eeaf20f0cd048ab1"
STAGES = sorted((KEPT / "stages").glob("*/*"), key=str)

on_disk = settings(max_examples=30)
finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=20)
plain = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
identities = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | words
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
objects: SearchStrategy[dict[str, Any]] = st.dictionaries(words, anything, max_size=4)
trials = st.builds(
    TrialRecord,
    number=st.integers(0, 10**6),
    label=words,
    settings=objects,
    state=st.sampled_from(["open", "complete", "failed", "invalid", "pruned"]),
    error=st.none() | words,
    values=st.lists(finite | st.integers(-(2**53), 2**53), max_size=3).map(tuple),
    violations=st.lists(words, max_size=2).map(tuple),
    stages=st.dictionaries(plain, identities, max_size=4),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples: each overwrites what the one before wrote."""
    return tmp_path_factory.mktemp("records")


mlflow_records = st.builds(
    MlflowRecord,
    address=st.none() | words,
    experiment_id=words,
    parent_run_id=words,
    runs=st.dictionaries(st.integers(0, 99).map(str), words, max_size=3),
)


@on_disk
@given(mlflow_records)
def test_where_runs_are_is_read_as_written(folder: Path, written: MlflowRecord) -> None:
    written.save(folder)
    assert MlflowRecord.load(folder) == written


def test_a_damaged_record_of_runs_says_what_to_do(tmp_path: Path) -> None:
    assert MlflowRecord.load(tmp_path) is None
    (tmp_path / "mlflow.json").write_text('{"address": "http://x", "experiment_id": 1}')
    with pytest.raises(RecordError, match=r"mlflow\.json is damaged .*calm-bench mlflow sync writes it anew"):
        MlflowRecord.load(tmp_path)


@on_disk
@given(st.lists(trials, max_size=4))
def test_trials_are_read_as_written(folder: Path, written: list[TrialRecord]) -> None:
    save_trials(folder, written)
    assert load_trials(folder) == tuple(written)
    # Integers stay integers, and no field is added or lost.
    content = (folder / TRIALS_FILE).read_bytes()
    save_trials(folder, load_trials(folder))
    assert (folder / TRIALS_FILE).read_bytes() == content


@on_disk
@given(plain, identities, objects, objects, st.dictionaries(plain, st.tuples(plain, identities), max_size=3))
def test_stages_are_read_as_written(
    folder: Path, kind: str, identity: str, config: dict[str, Any], result: dict[str, Any], inputs: dict[str, Any]
) -> None:
    sources = {name: {"kind": source, "identity": found} for name, (source, found) in inputs.items()}
    description = {
        "kind": kind,
        "revision": 2,
        "identity": identity,
        "label": kind,
        "config": config,
        "settings": config,
        "inputs": sources,
    }
    write_description(folder, description)
    assert StageRecord.load(folder).model_dump() == description
    write_result(folder, result)
    assert is_finished(folder)
    assert read_result(folder) == result


@on_disk
@given(st.dictionaries(identities, finite, max_size=3), finite, finite)
def test_estimates_are_read_as_written(folder: Path, stages: dict[str, float], estimated: float, seen: float) -> None:
    record = EstimateRecord(
        machine={"name": "local", "gpus": 0},
        calibrated="2026-11-28",
        total=ComparedTime(count=3, estimated_s=estimated, measured_s=seen, error=None),
        kinds={"tokens": ComparedTime(count=1, estimated_s=seen, measured_s=estimated, error=0.5)},
        stages={
            identity: StageTime(kind="tokens", label="tokens", estimated_s=None, measured_s=seconds)
            for identity, seconds in stages.items()
        },
    )
    record.save(folder)
    assert EstimateRecord.load(folder) == record


@on_disk
@given(st.text("abz-_0", min_size=1, max_size=12), identities)
def test_names_are_put_together_and_taken_apart(name: str, identity: str) -> None:
    assert StageRef.parse(StageRef(name, identity).name) == StageRef(name, identity)
    assert StudyRef.parse(StudyRef(name, identity).folder_name) == StudyRef(name, identity)
    assert StudyRef(name, identity).folder_name == f"{name}-{identity}"


def test_a_study_is_read_as_written(tmp_path: Path) -> None:
    study = resolve_study("k-ablation")
    save_study(tmp_path, study)
    record = StudyRecord.load(tmp_path)
    assert record.study() == study
    assert record.objectives == [objective.metric for objective in study.search.objectives]
    assert record.optuna_storage is None
    address = "postgresql://me:secret@host/db"
    changed = study.model_copy(update={"execution": study.execution.model_copy(update={"optuna_storage": address})})
    save_study(tmp_path, changed)
    assert "secret" not in StudyRecord.load(tmp_path).text
    assert "host/db" in str(StudyRecord.load(tmp_path).optuna_storage)


def test_provenance_is_read_as_written(tmp_path: Path) -> None:
    add_attempt(tmp_path, "cpu")
    add_attempt(tmp_path, "cuda")
    with (tmp_path / "attempts.jsonl").open("a") as file:
        # Its process was killed meanwhile.
        file.write('{"started": 12')
    written = provenance("cpu", 3, 12.5, 1e9) | {"workers": 2}
    write_provenance(tmp_path, written)
    found = ProvenanceRecord.load(tmp_path)
    assert found is not None
    assert [attempt.device for attempt in found.attempts] == ["cpu", "cuda"]
    assert found.attempts == read_attempts(tmp_path)
    assert found.ended == found.attempts[-1].started + 12.5
    on_disk = json.loads((tmp_path / PROVENANCE_FILE).read_text())
    assert {name: value for name, value in on_disk.items() if name != "attempts"} == written
    assert found.model_dump(exclude_unset=True) == on_disk | {"attempts": found.model_dump()["attempts"]}


def test_names_that_leave_the_store_are_left_out(tmp_path: Path) -> None:
    row = {"number": 0, "state": "open", "stages": {"tokens": "0123", "evaluation": "../../..", "../..": "x"}}
    write_json(tmp_path / TRIALS_FILE, [row])
    assert refs_of(load_trials(tmp_path)) == {StageRef("tokens", "0123")}


LOADERS = [
    (TRIALS_FILE, load_trials),
    (CONFIG_FILE, StageRecord.load),
    (RESULT_FILE, read_result),
    (PROVENANCE_FILE, ProvenanceRecord.load),
    (ESTIMATE_FILE, EstimateRecord.load),
    (STUDY_FILE, StudyRecord.load),
]


@pytest.mark.parametrize(("name", "load"), LOADERS)
@pytest.mark.parametrize("content", [b"[{", b'"text"', b"\xff\xfe\x00", b"", b"[1, 2]"])
def test_a_damaged_file_is_named_with_a_way_out(tmp_path: Path, name: str, load: Any, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name} is damaged (")
    assert "\n" not in message
    assert "remove" in message


def test_a_newer_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    write_json(tmp_path / TRIALS_FILE, [{"number": 0, "state": "open", "priority": 3}])
    with pytest.raises(RecordError, match=r"trials\.json has fields .*\(priority\): a newer version .* update"):
        load_trials(tmp_path)
    write_json(tmp_path / TRIALS_FILE, [{"number": 0, "state": "postponed"}])
    with pytest.raises(RecordError, match=r"trials\.json is damaged \(0\.state: Input should be 'open', .*\): run"):
        load_trials(tmp_path)


def test_what_is_missing_is_no_damage(tmp_path: Path) -> None:
    assert not has_begun(tmp_path)
    assert not is_finished(tmp_path)
    assert ProvenanceRecord.load(tmp_path) is None
    assert EstimateRecord.load(tmp_path) is None
    assert load_board(tmp_path) is None
    assert load_study(tmp_path) is None
    assert planned_seconds(tmp_path) == {}
    assert read_lines("language_model", tmp_path) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        for load in (load_trials, StageRecord.load, read_result, StudyRecord.load):
            with pytest.raises(FileNotFoundError):
                load(folder)


def test_a_damaged_board_names_its_file(tmp_path: Path) -> None:
    (tmp_path / LEADERBOARD_FILE).write_text(Leaderboard([]).to_json().replace('"version": 1', '"version": 9'))
    with pytest.raises(LeaderboardError, match=r"leaderboard\.json is a leaderboard of version 9, but"):
        load_board(tmp_path)


@pytest.mark.parametrize("folder", STAGES, ids=lambda folder: folder.parent.name)
def test_stages_of_older_versions_are_read_and_written_alike(tmp_path: Path, folder: Path) -> None:
    record = StageRecord.load(folder)
    assert (record.kind, record.identity) == (folder.parent.name, folder.name)
    write_description(tmp_path, record.model_dump())
    write_result(tmp_path, read_result(folder))
    origin = ProvenanceRecord.load(folder)
    assert origin is not None
    told = origin.model_dump(exclude_unset=True)
    with (tmp_path / "attempts.jsonl").open("w") as file:
        file.writelines(json.dumps(attempt) + "\n" for attempt in told.pop("attempts"))
    write_provenance(tmp_path, told)
    for name in (CONFIG_FILE, RESULT_FILE, PROVENANCE_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    is_training = record.kind in ("autoencoder", "language_model")
    assert bool(is_training and read_lines(record.kind, folder)) == is_training


def test_a_study_of_an_older_version_is_read_and_written_alike(tmp_path: Path) -> None:
    folder = KEPT / "studies" / STUDY
    trials = load_trials(folder)
    assert [(trial.label, trial.state) for trial in trials] == [("token", "complete"), ("K=2", "complete")]
    save_trials(tmp_path, trials)
    save_study(tmp_path, StudyRecord.load(folder).study())
    estimate = EstimateRecord.load(folder)
    assert estimate is not None
    estimate.save(tmp_path)
    for name in (TRIALS_FILE, STUDY_FILE, ESTIMATE_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert planned_seconds(folder).keys() == estimate.stages.keys()
    (record,) = (read_record(path) for path in (folder / PROGRESS).glob("*.json"))
    assert record is not None
    assert record.state == "finished"
    board = load_board(folder)
    assert board is not None
    assert {entry.label for entry in board} == {"token", "K=2"}


def test_a_store_of_an_older_version_is_reported(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    folders = study_folders(store)
    assert [folder.name for folder in folders] == [STUDY]
    report = collect(store, folders)
    assert [row.label for board in report.boards for row in board.rows] == ["token", "K=2"]
    assert [curves.kind for curves in report.curves] == ["language_model", "language_model", "autoencoder"]
    assert report.studies[0].finished is not None
    assert report.studies[0].estimates
    assert {stage.state for stage in stored_stages(store)} == {"done"}
    assert all(stage.studies == ("smoke",) for stage in stored_stages(store))


def test_a_store_that_was_moved_knows_its_models(tmp_path: Path) -> None:
    """Rows of older versions hold the place where the store was then."""
    store = Store(tmp_path / "moved")
    shutil.copytree(KEPT, store.root)
    for entry in load_board(store.root / "studies" / STUDY) or ():
        assert entry.model_folder.startswith("/home/me/")
        folder = store.root / "stages" / "language_model" / entry.model_identity / "model"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        # The weights were left out of what is kept here, and a stage that is not what its record says is refused.
        (folder.parent / "files.json").unlink()
        relative = folder.relative_to(store.root)
        for name in (entry.label, entry.model_folder, str(relative), str(relative.parent), str(folder)):
            found = find_model(name, store)
            assert found.folder == folder
            assert found.evaluation is not None
    (record,) = (read_record(path) for path in (store.root / "studies" / STUDY / PROGRESS).glob("*.json"))
    assert record is not None
    assert record.view.folder == str(store.root / "studies" / STUDY)


@pytest.mark.parametrize("path", ["stages/language_model/../model", "stages/../..", "x/stages/language_model"])
def test_a_path_of_a_row_leads_nowhere_else(tmp_path: Path, path: str) -> None:
    store = Store(tmp_path / "runs")
    shutil.copytree(KEPT, store.root)
    with pytest.raises(ConfigurationError, match="no model"):
        find_model(path, store)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"step": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"loss": 1}', "KeyError: 'step' in the line"),
        ('{"step": "x"}', "invalid literal"),
        ("{loss}", "JSONDecodeError"),
    ],
)
def test_a_damaged_line_of_a_log_is_named(line: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "metrics": {"loss": 2.0}}\n' + line + "\n")
    for read in (lambda: read_lines("token", tmp_path), MetricsTail("token", [tmp_path]).read):
        with pytest.raises(RecordError, match=rf"^{tmp_path}/metrics\.jsonl is damaged .*{fault}"):
            read()


def test_a_study_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("[" * 5000)
    with pytest.raises(RecordError, match=r"study\.yaml is damaged \(not YAML: lists or mappings in each other"):
        StudyRecord.load(tmp_path)
