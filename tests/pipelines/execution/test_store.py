from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pipelines.store.store import Store
from pipelines.study.stage import Stage

Toy = Callable[..., Stage]


def test_publishing_moves_the_whole_work_folder(store: Store, toy: Toy) -> None:
    stage = toy("draw", seed=3)
    assert not store.is_done(stage)
    work = store.open_work(stage, "cpu")
    (work / "model").mkdir()
    (work / "model" / "weights").write_bytes(b"123")
    (work / "checkpoints").mkdir()
    (work / "checkpoints" / "state").write_bytes(b"456")
    stored = store.publish(stage, {"value": (1, 2)}, {"seed": 3}, scratch=("checkpoints",))
    folder = store.folder(stage)
    assert stored == store.result(stage) == {"value": [1, 2]}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert names == ["config.json", "files.json", "model", "model/weights", "provenance.json", "result.json"]
    assert not work.exists()
    assert json.loads((folder / "config.json").read_text())["config"] == {"seed": 3}
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["seed"] == 3
    assert len(provenance["attempts"]) == 1


def test_a_second_attempt_finds_the_first_one(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    (store.open_work(stage, "cpu") / "partial").write_text("half")
    assert (store.open_work(stage, "cpu") / "partial").read_text() == "half"
    store.publish(stage, {}, {})
    assert len(json.loads((store.folder(stage) / "provenance.json").read_text())["attempts"]) == 2


def test_what_is_not_json_is_not_published(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    work = store.open_work(stage, "cpu")
    for result in ({"loss": float("nan")}, {"path": store.root}):
        with pytest.raises((ValueError, TypeError)):
            store.publish(stage, result, {})
        assert not store.is_done(stage)
        assert work.exists()


def test_the_first_to_publish_wins(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    store.open_work(stage, "cpu")
    store.publish(stage, {"value": 1}, {})
    store.open_work(stage, "cpu")
    assert store.publish(stage, {"value": 2}, {}) == {"value": 1}
    assert not store.work_folder(stage).exists()
