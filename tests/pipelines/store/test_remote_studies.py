"""Whole studies on a store whose home is elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.events import Event, StageStarted, TrialFinished
from pipelines.execution.local_executor import LocalExecutor
from pipelines.planning.planner import plan_study
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.stored import stored_leaderboards
from pipelines.scoring.models import find_model
from pipelines.search.drive import run_study
from pipelines.store.errors import StudyBusy
from pipelines.store.flags import ObjectFlag
from pipelines.store.inventory import stored_stages
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from tests.object_stores import objects_of

Host = Callable[..., Store]

TRAINING = {
    "num_steps": 4,
    "batch_size": 4,
    "sequence_length": 32,
    "warmup_steps": 1,
    "log_every": 2,
    "validation_batches": 1,
}
SIZE = {"hidden_size": 16, "intermediate_size": 16}
STUDY = Study.model_validate(
    {
        "name": "tiny",
        "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 100}},
        "autoencoder": {"latent_size": 8, **SIZE, "training": TRAINING},
        "model": {
            **SIZE,
            "num_layers": 1,
            "num_attention_heads": 2,
            "head": {"num_samples": 2, "num_targets": 4, "noise_size": 4, "num_blocks": 1},
            "training": TRAINING,
        },
        "evaluation": {"context_length": 32, "first_position": 8, "num_samples": 2},
        "samples": {"num_prompts": 0},
        "search": {
            "parameters": [
                {"name": "model", "choices": {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}}
            ]
        },
    }
)


class Counter:
    """A listener that counts stages that were run, and may raise after the first trial."""

    def __init__(self, fall: bool = False) -> None:
        self.started = 0
        self._fall = fall

    def handle(self, event: Event) -> None:
        self.started += isinstance(event, StageStarted)
        if self._fall and isinstance(event, TrialFinished):
            raise KeyboardInterrupt


def _run(store: Store, fall: bool = False, study: Study = STUDY) -> tuple[Sequence[TrialOutcome], int]:
    executor, counter = LocalExecutor(store, "cpu"), Counter(fall)
    try:
        return run_study(study, store, executor, counter), counter.started
    finally:
        executor.close()


def _board(outcomes: Sequence[TrialOutcome], study: Study = STUDY) -> list[dict[str, Any]]:
    varying = {"wall_time_s", "total_wall_time_s", "tokens_per_second", "generated_tokens_per_second", "model_folder"}
    rows = Leaderboard(entry_from(outcome, study) for outcome in outcomes)
    return [row.model_dump(mode="json", exclude=varying) for row in rows]


@pytest.fixture
def plain(tmp_path: Path) -> list[dict[str, Any]]:
    """The leaderboard of a local store."""
    return _board(_run(Store(tmp_path / "plain"))[0])


@pytest.mark.slow
@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_study_ends_as_in_a_local_store_wherever_it_goes_on(
    host: Host, plain: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    first = host("a")
    with pytest.raises(KeyboardInterrupt):
        _run(first, fall=True)
    second = host("b")
    outcomes, started = _run(second)
    assert _board(outcomes) == plain
    assert started < 7
    folder = study_folder(STUDY, second)
    files = write_leaderboard(Leaderboard(entry_from(outcome, STUDY) for outcome in outcomes), folder)
    second.studies.save(folder.name)
    assert len(files) >= 5

    third = host("c")
    outcomes, started = _run(third)
    assert started == 0
    assert _board(outcomes) == plain
    (board,) = stored_leaderboards(third).values()
    entry = next(entry for entry in board if entry.label == "K=2")
    assert entry.model_folder.startswith(third.uri)
    model = find_model("K=2", host("d"))
    assert (model.folder / "model.safetensors").is_file()
    assert model.corpus == STUDY.corpus.model_dump(mode="json")
    assert model.evaluation is not None
    assert {stage.studies for stage in stored_stages(third)} == {("tiny",)}
    assert {stage.state for stage in plan_study(STUDY, host("e")).stages} == {"cached"}
    names = {key.split("/")[2] for key in objects_of(third).list("studies")}
    assert {"optuna.journal", "study.yaml", "trials.json", "leaderboard.json", "leaderboard.png"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".lock")]
    assert not [*objects_of(third).list("leases"), *objects_of(third).list("work"), *objects_of(third).list("stop")]


@pytest.mark.slow
@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_two_studies_share_their_stages(host: Host) -> None:
    _, first = _run(host("a"))
    _, second = _run(host("b"), study=STUDY.model_copy(update={"name": "other"}))
    assert (first, second) == (7, 0)
    assert {stage.studies for stage in stored_stages(host("c"))} == {("other", "tiny")}


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_second_driver_is_told_who_has_the_study(host: Host) -> None:
    with (
        host("a").studies.open("tiny-1"),
        pytest.raises(StudyBusy, match=r"^process \d+ on .* runs this study in memory://.*execution.optuna_storage"),
        host("b").studies.open("tiny-1"),
    ):
        pass
    with host("b").studies.open("tiny-1"):
        pass
    # Trials of one study in a journal and in a database would be two searches under one name.
    with (
        host("a").studies.open("tiny-1"),
        pytest.raises(StudyBusy, match=r"with its trials in a journal: wait for it, or stop it and have all drivers"),
        host("b").studies.open("tiny-1", "1234"),
    ):
        pass
    # With trials in a database there is nothing that only one may write.
    with host("a").studies.open("tiny-1", "1234"), host("b").studies.open("tiny-1", "1234"):
        pass


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_driver_that_was_cut_off_does_not_overwrite_its_successor(host: Host) -> None:
    store = host("a", expiry_s=3.0, heartbeat_s=0.1)
    folder = store.root / "studies" / "tiny-1"
    folder.mkdir(parents=True)
    (folder / "optuna.journal").write_text("mine\n")

    def drive() -> None:
        with store.studies.open("tiny-1"):
            # Its heartbeat ends when it finds that the lease is gone; it may be writing it just then.
            while any(thread.name == "lease study-tiny-1" for thread in threading.enumerate()):
                objects_of(store).delete(objects_of(store).list("leases"))
                time.sleep(0.01)

    with pytest.raises(StudyBusy, match="cut off"):
        drive()
    assert not objects_of(store).list("studies")


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_files_of_a_study_follow_it(host: Host) -> None:
    with host("a").studies.open("tiny-1") as folder:
        folder.mkdir(parents=True)
        (folder / "optuna.journal").write_text("one\n")
        (folder / ".optuna.journal.guard").touch()
        host_a_text = (folder / "optuna.journal").read_text()
    with host("b").studies.open("tiny-1") as folder:
        assert (folder / "optuna.journal").read_text() == host_a_text
        assert [path.name for path in folder.iterdir()] == ["optuna.journal"]
        (folder / "optuna.journal").write_text("one\ntwo\n")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "front.svg").write_text("<svg/>")
    with host("a").studies.open("tiny-1") as folder:
        assert (folder / "optuna.journal").read_text() == "one\ntwo\n"
        assert (folder / "pictures" / "front.svg").read_text() == "<svg/>"


def test_reading_a_study_does_not_disturb_its_driver_on_this_host(host: Host) -> None:
    driver, reader = host("a"), host("a")
    with driver.studies.open("tiny-1") as folder:
        folder.mkdir(parents=True)
        for name in ("trials.json", "optuna.journal"):
            (folder / name).write_text("[]")
        driver.studies.save("tiny-1")
        for name in ("trials.json", "optuna.journal"):
            (folder / name).write_text("[ ]")
        assert reader.studies.folders() == [folder]
        reader.studies.folders(complete=True)
        for name in ("trials.json", "optuna.journal"):
            assert (folder / name).read_text() == "[ ]"
    other = host("b")
    other.studies.folders(complete=True)
    assert [path.name for path in (other.root / "studies" / "tiny-1").iterdir()] == ["trials.json"]


def test_a_flag_is_seen_by_all_and_lowered_by_its_beginning(host: Host) -> None:
    one, other = host("a"), host("b")
    one.flags.raise_flag("driver-1")
    one.flags.raise_flag("driver-1-stage")
    assert other.flags.get("driver-1").exists()
    assert isinstance(other.flags.get("driver-1"), ObjectFlag)
    assert not other.flags.get("driver-2").exists()
    one.flags.get("driver-1-stage").unlink()
    assert not other.flags.get("driver-1-stage").exists()
    other.flags.lower("driver-1")
    assert not one.flags.get("driver-1").exists()


def test_garbage_in_the_place_of_a_study_needs_nothing(host: Host) -> None:
    store = host("a")
    objects_of(store).write("studies/notes.txt", b"hello")
    objects_of(store).write("studies/x-1/trials.json", json.dumps([]).encode())
    assert [folder.name for folder in store.studies.folders()] == ["x-1"]
    assert isinstance(objects_of(store), ObjectStore)
    store.studies.folders(complete=True)
