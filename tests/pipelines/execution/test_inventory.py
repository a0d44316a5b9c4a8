"""What is in a store, whether it is intact, and what of it can go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.store.integrity import verify_folder
from pipelines.store.inventory import StoreError, stored_stages, studies_in
from pipelines.store.render import age, size
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.sweeping import find_waste, remove
from pipelines.study.config import Study
from pipelines.study.stage import Stage

Toy = Callable[..., Stage]


def _publish(store: Store, stage: Stage, text: str = "artifact") -> Path:
    (store.open_work(stage, "cpu") / "artifact").write_text(text)
    store.publish(stage, {"value": 1}, {})
    return store.folder(stage)


def _study(store: Store, name: str, **trials: list[Stage]) -> None:
    """A study with one trial of each state."""
    written = [
        {"number": number, "state": state, "stages": {stage.kind: stage.identity for stage in stages}}
        for number, (state, stages) in enumerate(trials.items())
    ]
    folder = store.root / "studies" / f"{name}-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "trials.json").write_text(json.dumps(written))


def _states(store: Store) -> dict[str, str]:
    return {stage.name: stage.state for stage in stored_stages(store)}


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_stages_are_listed_with_state_and_users(store: Store, toy: Toy) -> None:
    done, held, paused, failed, strange = (toy("draw", seed=seed) for seed in range(5))
    folder = _publish(store, done)
    for stage in (held, paused, failed, strange):
        (store.open_work(stage, "cpu") / "half").write_bytes(bytes(1000))
    _study(store, "first", complete=[done], open=[paused], failed=[failed])
    _study(store, "second", open=[done])
    with store.claim(held) or pytest.fail("nobody else claims it"):
        found = {stage.name: stage for stage in stored_stages(store)}
        assert {name: stage.state for name, stage in found.items()} == {
            done.name: "done",
            held.name: "running",
            paused.name: "unfinished",
            failed.name: "abandoned",
            strange.name: "abandoned",
        }
        assert f"process {os.getpid()} on " in found[held.name].holder
    assert found[done.name].studies == ("first", "second")
    assert found[done.name].size == sum(path.stat().st_size for path in folder.iterdir())
    assert found[paused.name].size > 1000
    assert _states(store)[held.name] == "abandoned"
    assert [(record.name, record.is_finished) for record in studies_in(store)] == [
        ("first", False),
        ("second", False),
    ]


@pytest.mark.parametrize("name", ["artifact", "result.json", "provenance.json", "config.json", "files.json"])
def test_a_flipped_bit_is_found_in_every_file(store: Store, toy: Toy, name: str) -> None:
    folder = _publish(store, toy("draw"))
    assert verify_folder(folder) == []
    _flip(folder / name, (folder / name).stat().st_size // 2)
    assert verify_folder(folder), name


def test_what_is_missing_cut_or_under_another_name_is_found(store: Store, toy: Toy) -> None:
    folder = _publish(store, toy("draw"))
    shutil.copytree(folder, folder.with_name("0" * 16))
    damage = verify_folder(folder.with_name("0" * 16))
    assert damage == [f"it is the stage draw/{toy('draw').identity} under another name"]
    (folder / "artifact").write_text("art")
    assert verify_folder(folder) == ["artifact has 3 bytes instead of 8"]
    (folder / "artifact").unlink()
    assert verify_folder(folder) == ["artifact is missing"]
    (folder / "files.json").write_text('{"../../secret": {"bytes": 1, "sha256": ""}}')
    assert verify_folder(folder) == ["files.json cannot be read (it names files outside its folder)"]
    (folder / "files.json").unlink()
    assert verify_folder(folder) is None


def test_half_written_files_of_a_killed_attempt_are_not_published(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    work = store.open_work(stage, "cpu")
    for name in (".metrics.json.x8_k2m4q", ".gitattributes", "error.txt"):
        (work / name).write_text("left")
    store.publish(stage, {}, {})
    names = {path.name for path in store.folder(stage).iterdir()}
    assert names == {".gitattributes", "config.json", "files.json", "provenance.json", "result.json"}


def test_only_what_nobody_needs_goes(store: Store, toy: Toy) -> None:
    needed, needless, held, paused, abandoned = (toy("draw", seed=seed) for seed in range(5))
    for stage in (needed, needless):
        _publish(store, stage)
    for stage in (held, paused, abandoned):
        store.open_work(stage, "cpu")
    _study(store, "study", complete=[needed], open=[paused])
    (store.root / "leases").mkdir()
    (store.root / "leases" / "dead.json").write_text("{}")
    with store.claim(held) or pytest.fail("nobody else claims it"):
        waste = find_waste(store)
        assert {item.folder for item in waste} == {
            store.folder(needless),
            store.work_folder(abandoned),
            store.root / "leases" / "dead.json",
        }
        assert store.is_done(needless), "finding removes nothing"
        assert {item.folder for item in remove(store, waste)} == {item.folder for item in waste}
    assert _states(store) == {needed.name: "done", held.name: "abandoned", paused.name: "unfinished"}
    assert not (store.root / "trash").exists()
    assert [path.name for path in (store.root / "leases").iterdir()] == [".guard"]


def test_what_is_taken_up_meanwhile_stays(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    store.open_work(stage, "cpu")
    waste = find_waste(store)
    with store.claim(stage) or pytest.fail("nobody else claims it"):
        assert remove(store, waste) == []
        assert store.work_folder(stage).is_dir()


def test_nothing_is_called_needless_while_a_study_cannot_be_read(store: Store, toy: Toy) -> None:
    _publish(store, toy("draw"))
    _study(store, "study", complete=[toy("draw")])
    (study,) = (store.root / "studies").iterdir()
    (study / "trials.json").write_text("[{]")
    with pytest.raises(StoreError, match="run the study again, which writes it anew"):
        find_waste(store)


def test_a_study_says_what_it_needs_before_it_begins(
    run: Callable[..., list[Any]], store: Store, tiny_study: Callable[..., Study], recorder: Any
) -> None:
    from pipelines.execution.events import StageStarted

    study = tiny_study(search={"parameters": [{"name": "model.kind", "values": ["token"]}]})
    seen: list[set[str]] = []

    def look(event: Any) -> None:
        if isinstance(event, StageStarted) and not seen:
            (record,) = studies_in(store)
            assert not find_waste(store)
            seen.append({name.split("-")[0] for name in record.to_do})

    run(study, recorder(look))
    assert seen == [{"corpus", "tokens", "language_model", "evaluation"}]
    (record,) = studies_in(store)
    assert record.is_finished
    assert {stage.state for stage in stored_stages(store)} == {"done"}
    assert find_waste(store) == []
    assert all(verify_folder(stage.folder) == [] for stage in stored_stages(store))
    shutil.rmtree(study_folder(study, store))
    assert len(find_waste(store)) == 4


def test_the_commands(store: Store, toy: Toy) -> None:
    def call(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["store", *arguments, "--store", str(store.root)])
        assert done.exit_code == code, done.output
        return done.output

    kept, waste = _publish(store, toy("draw", seed=1)), _publish(store, toy("draw", seed=2))
    _study(store, "study", complete=[toy("draw", seed=1)])
    listed = json.loads(call("ls", "--json"))
    assert {entry["folder"] for entry in listed["stages"]} == {str(kept), str(waste)}
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["stages"]) > 0
    assert "2 done" in call("ls")
    assert "2 finished stages are intact, 0 are damaged" in call("verify")

    found = json.loads(call("gc", "--json"))
    assert [item["folder"] for item in found["items"]] == [str(waste)]
    assert "nothing was removed, --delete does it" in call("gc")
    assert waste.is_dir()
    assert "removed" in call("gc", "--delete")
    assert not waste.exists()
    assert "need all that is there" in call("gc")

    _flip(kept / "artifact", 2)
    told = call("verify", code=1)
    assert f"remove {kept}; calm-bench run STUDY makes it again, of study" in told
    assert json.loads(call("verify", "--json", code=1))["damaged"] == [
        {"folder": str(kept), "damage": ["artifact has other content than was published"]}
    ]
    (kept / "files.json").unlink()
    assert "1 were published without hashes" in call("verify")


def test_stages_that_a_study_has_ended_with_and_that_are_gone_are_told_with_the_command(store: Store, toy: Toy) -> None:
    def verified(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["store", "verify", "--store", str(store.root), *arguments])
        return done.exit_code, done.output

    there, gone, failed, paused = (toy("draw", seed=seed) for seed in range(4))
    _publish(store, there)
    _study(store, "whole", complete=[there], failed=[failed], open=[paused])
    assert verified()[0] == 0, "what a trial has not ended with need not be there"
    _study(store, "study", complete=[there, gone])
    (folder,) = (store.root / "studies").glob("study-*")
    code, told = verified()
    assert code == 1
    assert f"study has ended with a stage that is not there: {gone.name}" in told
    assert f"{folder} has no study.yaml" in told
    (folder / "study.yaml").write_text("name: study\n")
    assert f"calm-bench run {folder}/study.yaml --store {store.root} makes them again" in verified()[1]
    assert json.loads(verified("--json")[1])["missing"] == [{"study": folder.name, "stages": [gone.name]}]


def test_sizes_and_ages() -> None:
    assert [size(count) for count in (0, 999, 1000, 12345, 999_499, 999_700, 2.5e9)] == [
        "0 B", "999 B", "1 kB", "12.3 kB", "999 kB", "1 MB", "2.5 GB"
    ]  # fmt: skip
    assert [age(seconds) for seconds in (-3, 59, 185, 3600, 100_000, 200_000)] == [
        "0 min", "0 min", "3 min", "1 h", "27 h", "2 d"
    ]  # fmt: skip
