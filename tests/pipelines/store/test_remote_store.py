"""A store whose home is an object store: whole or not at all, fetched where it is needed, checked."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.store import manifest
from pipelines.store.errors import CorruptedStage, StoreUnreachable
from pipelines.store.integrity import RECORD, verify_folder
from pipelines.store.inventory import stored_stages
from pipelines.store.object_store import ObjectStore
from pipelines.store.opening import open_store
from pipelines.store.published_index import PublishedIndex
from pipelines.store.refs import StageRef
from pipelines.store.store import Store
from pipelines.store.sweeping import find_waste, remove
from pipelines.study.stage import Stage
from tests.object_stores import objects_of, remote_store

Host = Callable[..., Store]
MakeStage = Callable[..., Stage]
Do = Callable[..., dict[str, Any]]


def _weights_key(home: ObjectStore, stage: Stage) -> str:
    (key,) = [key for key in home.list(f"stages/{stage.kind}/{stage.identity}") if key.endswith("weights.bin")]
    return key


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_another_host_finds_what_one_has_published(host: Host, stage: MakeStage, do: Do) -> None:
    below = stage(seed=3)
    above = stage("above", {"below": below}, seed=4)
    first, second = host("a"), host("b")
    assert do(first, above) == {"value": 7}
    assert second.is_done(above)
    assert not second.is_whole(above)
    assert second.result(above) == {"value": 7}
    folder = second.fetch(above)
    assert (folder / "model" / "weights.bin").read_text() == "7"
    assert verify_folder(folder) == []
    assert json.loads((folder / "provenance.json").read_text())["attempts"]
    found = second.record(StageRef("above", above.identity))
    assert found is not None
    assert found.model_dump() == above.description()
    assert [record.identity for record in second.records("count")] == [below.identity]


def test_inputs_are_fetched_where_they_are_needed(host: Host, stage: MakeStage, do: Do) -> None:
    below = stage(seed=3)
    above = stage("above", {"below": below}, seed=4)
    do(host("a"), below)
    second = host("b")
    assert do(second, above) == {"value": 7}
    assert json.loads((second.folder(below) / "provenance.json").read_text()) == json.loads(
        (host("a").folder(below) / "provenance.json").read_text()
    )


def test_a_lost_cache_costs_nothing_but_fetching(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=1)
    store = host()
    do(store, made)
    shutil.rmtree(store.root)
    again = host()
    assert again.is_done(made)
    assert (again.fetch(made) / "model" / "weights.bin").read_text() == "1"


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_what_is_half_uploaded_is_not_there_and_can_go(
    host: Host, stage: MakeStage, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(seed=2)
    store = host("a")
    write = ObjectStore.write

    def refuse(home: ObjectStore, key: str, content: bytes) -> None:
        if key.startswith("published/"):
            raise StoreUnreachable("the line is cut")
        write(home, key, content)

    with monkeypatch.context() as cut:
        cut.setattr(ObjectStore, "write", refuse)
        with pytest.raises(Exception, match="the line is cut"):
            do(store, made)
    other = host("b")
    assert not other.is_done(made)
    assert other.find_folder("count", made.identity) is None
    assert objects_of(other).list("stages")
    waste = [item for item in find_waste(other) if item.what.startswith("stages/")]
    assert [item.reason for item in waste] == ["uploaded in part, or set aside because it was damaged"]
    remove(other, waste)
    assert not objects_of(other).list("stages")
    # What was complete here is published without being made again.
    before = (store.work_folder(made) / RECORD).read_bytes()
    assert do(store, made) == {"value": 2}
    assert (store.folder(made) / RECORD).read_bytes() == before
    assert host("c").fetch(made)


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_a_damaged_object_is_found_and_the_stage_made_again(host: Host, stage: MakeStage, do: Do) -> None:
    below = stage(seed=3)
    above = stage("above", {"below": below}, seed=4)
    first = host("a")
    do(first, below)
    assert first.verify("count", below.identity) == []
    objects_of(first).write(_weights_key(objects_of(first), below), b"4")
    assert first.verify("count", below.identity) == ["model/weights.bin has other content than was published"]
    second = host("b")
    with pytest.raises(CorruptedStage, match=r"model/weights\.bin has other content"):
        second.fetch(below)
    with pytest.raises(Exception, match="damaged"):
        do(second, above)
    assert not second.is_done(below)
    assert do(second, above) == {"value": 7}
    assert second.verify("count", below.identity) == []
    # What was set aside goes with the garbage; what replaced it stays.
    remove(second, [item for item in find_waste(second) if item.stage is None])
    assert second.verify("count", below.identity) == []
    assert not objects_of(second).list("damaged")


def test_a_damaged_copy_is_fetched_again(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=3)
    store = host("a")
    do(store, made)
    (store.folder(made) / "model" / "weights.bin").write_text("4")
    assert store.corruption(made) == []
    assert (store.folder(made) / "model" / "weights.bin").read_text() == "3"


def test_a_missing_object_is_damage(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=3)
    do(host("a"), made)
    store = host("b")
    objects_of(store).delete([_weights_key(objects_of(store), made)])
    assert store.corruption(made) == ["model/weights.bin is missing"]
    assert store.verify("count", made.identity) == ["model/weights.bin is missing"]


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_damaged_small_file_is_named_with_what_to_remove(is_lost: bool, host: Host, stage: MakeStage, do: Do) -> None:
    whole, damaged = stage(seed=1), stage(seed=2)
    for made in (whole, damaged):
        do(host("a"), made)
    store = host("b")
    home, place = objects_of(store), f"stages/count/{damaged.identity}"
    (metrics,) = [key for key in home.list(place) if key.endswith("metrics.jsonl")]
    if is_lost:
        home.delete([metrics])
    else:
        home.write(metrics, home.read(metrics)[:10])
    problem = "metrics.jsonl is missing" if is_lost else "metrics.jsonl has other content than was published"
    with pytest.raises(CorruptedStage) as refused:
        store.summaries([whole, damaged])
    told = re.fullmatch(
        rf"{re.escape(home.uri(place))} is damaged \({re.escape(problem)}\): "
        r"remove (\S+), and calm-bench run STUDY makes it again",
        str(refused.value),
    )
    assert told is not None, refused.value
    assert not store.folder(damaged).exists()
    assert list(store.folder(whole).glob("metrics.jsonl")), "the others are here"
    # As it is advised, here and by calm-bench store verify.
    assert told[1] == store.sign("count", damaged.identity)
    home.delete([home.key_of(told[1])])
    assert not host("c").is_done(damaged)
    assert do(host("c"), damaged) == {"value": 2}
    assert (host("b").summaries([damaged])[damaged] / "metrics.jsonl").read_bytes() == home.read(
        next(key for key in home.list(place) if key.endswith("metrics.jsonl") and key != metrics)
    )
    assert host("b").verify("count", damaged.identity) == []


def test_a_stage_under_the_name_of_another_is_damage(host: Host, stage: MakeStage, do: Do) -> None:
    one, other = stage(seed=1), stage(seed=2)
    store = host("a")
    do(store, one)
    found = manifest.read(objects_of(store), PublishedIndex.key(one.name))
    assert found is not None
    for piece in found.files.values():
        content = objects_of(store).read(f"stages/count/{one.identity}/{piece.object}")
        objects_of(store).write(f"stages/count/{other.identity}/{piece.object}", content)
    objects_of(store).write(PublishedIndex.key(other.name), found.to_json())
    assert "under another name" in host("b").corruption(other)[0]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_record_that_cannot_be_read_is_no_publication(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=3)
    do(host("a"), made)
    store = host("b")
    objects_of(store).write(PublishedIndex.key(made.name), b"{half")
    assert not store.is_done(made)
    assert store.verify("count", made.identity) == ["its record cannot be read"]
    assert do(store, made) == {"value": 3}
    assert store.verify("count", made.identity) == []


def test_two_publishers_never_mix(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=5)
    first, second = host("a"), host("b")
    for store in (first, second):
        work = store.open_work(made, "cpu")
        (work / "model").mkdir()
        (work / "model" / "weights.bin").write_text(store.root.name)
    assert first.publish(made, {"value": 1}, {}) == {"value": 1}
    assert second.publish(made, {"value": 2}, {}) == {"value": 1}
    third = host("c")
    assert (third.fetch(made) / "model" / "weights.bin").read_text() == "host-a"
    assert third.verify("count", made.identity) == []


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_a_stage_is_listed_with_its_size_and_removed(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=1)
    do(host("a"), made)
    store = host("b")
    (listed,) = stored_stages(store)
    assert (listed.kind, listed.identity, listed.state) == ("count", made.identity, "done")
    folder = host("a").folder(made)
    assert listed.size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert str(listed.folder) == objects_of(store).uri(f"stages/count/{made.identity}")
    store.fetch(made)
    (waste,) = find_waste(store)
    assert remove(store, [waste]) == [waste]
    assert not store.is_done(made)
    assert not store.folder(made).exists()
    assert not objects_of(store).list("")
    # The other host has a copy that the store no longer has.
    (copy,) = find_waste(host("a"))
    assert copy.reason == "a copy of what the store no longer has"
    assert copy.folder == folder


def test_what_this_host_kept_is_uploaded_again_if_it_is_needed(host: Host, stage: MakeStage, do: Do) -> None:
    made = stage(seed=1)
    store = host("a")
    do(store, made)
    provenance = (store.folder(made) / "provenance.json").read_bytes()
    objects_of(store).delete(objects_of(store).list(""))
    assert not host("a").is_done(made)
    do(host("a"), made)
    assert (host("b").fetch(made) / "provenance.json").read_bytes() == provenance


def test_small_files_come_without_the_weights(
    host: Host, stage: MakeStage, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.store.local_cache.SMALL_BYTES", 0)
    made = stage(seed=1)
    do(host("a"), made)
    store = host("b")
    folder = store.summaries([made])[made]
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    assert not store.is_whole(made)
    assert (store.fetch(made) / "model" / "weights.bin").read_text() == "1"
    assert store.summaries([made])[made] == folder
    assert verify_folder(folder) == []


def test_a_store_travels_to_another_process_by_its_address(s3: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "here"))
    store = open_store(s3)
    store.try_out()
    packed = pickle.dumps(store)
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "there"))
    arrived = pickle.loads(packed)
    assert (arrived.uri, arrived.root.parent) == (s3, tmp_path / "there")
    arrived.try_out()
    assert not arrived.exists()


def test_a_server_that_never_answers_is_named_soon(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    # Connections are kept by the address of the store, and not by that of the server.
    S3FileSystem.clear_instance_cache()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with monkeypatch.context() as there:
            there.setenv("AWS_ENDPOINT_URL", address)
            there.setattr("calm_bench.first_answer.FIRST_ANSWER_S", 3.0)
            there.setattr("pipelines.store.object_store.PAUSES_S", (0.1, 0.1))
            with pytest.raises(StoreUnreachable, match=rf"no answer of {address} \(AWS_ENDPOINT_URL\) in 3 s"):
                ObjectStore("s3://silent/store").list("")
    S3FileSystem.clear_instance_cache()
    # With the address of a server that runs, as advised.
    assert list(ObjectStore(s3).list("")) == []


def test_a_bucket_that_is_not_there_is_named(s3: str, tmp_path: Path) -> None:
    import botocore.session

    store = remote_store(ObjectStore("s3://no-such-bucket/here"), tmp_path)
    assert not store.exists()
    with pytest.raises(StoreUnreachable, match=r"cannot write s3://no-such-bucket/here/.*the bucket, .* must exist$"):
        store.try_out()
    # As it is advised.
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="no-such-bucket")
    store.try_out()
    for found in client.list_objects_v2(Bucket="no-such-bucket").get("Contents", ()):
        client.delete_object(Bucket="no-such-bucket", Key=found["Key"])
    client.delete_bucket(Bucket="no-such-bucket")
