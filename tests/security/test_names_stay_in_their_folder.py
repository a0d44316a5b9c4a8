"""Names that come from outside lead nowhere but into their own folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calm_bench.fingerprint import file_digest
from calm_bench.overrides import ConfigurationError
from calm_bench.tokens import TokensError, TokenStream
from pipelines.execution.run_stage import run_stage
from pipelines.scoring.models import find_model
from pipelines.store import manifest
from pipelines.store.integrity import RECORD, verify_folder
from pipelines.store.inventory import stored_stages
from pipelines.store.names import is_plain, stays_inside
from pipelines.store.object_store import ObjectStore
from pipelines.store.published_index import PublishedIndex
from pipelines.store.store import Store
from pipelines.store.sweeping import find_waste, remove
from pipelines.study.catalogue import resolve_study
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from pipelines.tracking.times import StageFolders
from tests.object_stores import objects_of, remote_store

OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a//b", "a/./b", "..\\x", "C:\\x", "\\\\host\\x", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_known(name: str) -> None:
    assert not stays_inside(name)
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["model/model.safetensors", "a", ".hidden/b", "K=4@1", "snapshots/step-1/model"])
def test_ordinary_names_stay(name: str) -> None:
    assert stays_inside(name)


@given(st.text(alphabet="./\\ab:", max_size=12))
def test_what_stays_inside_is_inside(name: str) -> None:
    if stays_inside(name):
        folder = Path("/some/where")
        assert (folder / name).resolve().is_relative_to(folder)
        assert (folder / name).resolve() != folder


@pytest.mark.parametrize("name", ["../evil", "a/b", "/tmp/evil", "..", ".hidden", "a" * 65, "a\nb"])
def test_a_study_cannot_be_named_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"name": name}))
    with pytest.raises(ConfigurationError, match="name"):
        resolve_study(str(path))


def test_labels_and_choices_name_no_files(tmp_path: Path) -> None:
    """A label may be any text: no path is made of it."""
    path = tmp_path / "study.yaml"
    choices = {"../../evil": {"model.chunk_size": 2}, "/etc/passwd": {"model.kind": "token"}}
    path.write_text(json.dumps({"search": {"parameters": [{"name": "model", "choices": choices}]}}))
    study = resolve_study(str(path))
    from pipelines.study.graph import stages_for
    from pipelines.study.space import grid_points, label_of, settings_at

    for point in grid_points(study.search):
        from calm_bench.overrides import apply_settings

        graph = stages_for(apply_settings(study.experiment(), settings_at(study.search, point)))
        assert label_of(study.search, point, study.name) in choices
        assert all(is_plain(stage.name) for stage in graph.stages)


def _toy(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    (folder / "artifact").write_text("good")
    return {"value": 1}


TOY = StageKind("toy", _toy, uses_torch=False)


@pytest.fixture
def published(tmp_path: Path) -> tuple[Store, Stage]:
    """A foreign store with one stage, as one host made it."""
    STAGE_KINDS.register("toy", TOY)
    store = remote_store(ObjectStore(f"file://{tmp_path / 'home'}"), tmp_path / "maker")
    stage = Stage("toy", 1, {"seed": 0})
    run_stage(store, stage, STAGE_KINDS.get("toy"), StageContext())
    return store, stage


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.mark.parametrize("name", [name for name in OUTSIDE if "\0" not in name])
@pytest.mark.parametrize("part", ["name", "object"])
def test_a_foreign_record_cannot_write_outside(
    published: tuple[Store, Stage], tmp_path: Path, name: str, part: str
) -> None:
    maker, stage = published
    key = PublishedIndex.key(stage.name)
    record = json.loads(objects_of(maker).read(key))
    entry = record["files"].pop("artifact")
    if part == "name":
        record["files"][name] = entry
    else:
        record["files"]["artifact"] = entry | {"object": name}
    objects_of(maker).write(key, json.dumps(record).encode())
    before = _files(tmp_path)
    victim = remote_store(objects_of(maker), tmp_path / "victim")
    with pytest.raises(FileNotFoundError, match="no record"):
        victim.fetch(stage)
    assert "cannot be read" in str(victim.verify("toy", stage.identity))
    assert _files(tmp_path) == before


def test_a_foreign_listing_cannot_name_folders_outside(tmp_path: Path) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    for key in ("published/.._.._evil.json", "published/...json", "studies/.../trials.json", "studies/x y/trials.json"):
        home.write(key, b"[]")
    victim = remote_store(home, tmp_path / "victim")
    victim.studies.folders(complete=True)
    assert stored_stages(victim) == []
    assert victim.studies.folders() == []
    for kind, identity in (("..", "evil"), ("../..", "x"), ("toy", "../x"), ("", "")):
        assert victim.find_folder(kind, identity) is None
        assert Store(tmp_path / "local").find_folder(kind, identity) is None
        with pytest.raises(ValueError, match="would lead out of the store"):
            StageFolders.in_store(tmp_path, kind, identity)
    assert not (tmp_path / "victim").exists() or not _files(tmp_path / "victim")


def test_a_local_record_cannot_name_files_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "stages" / "toy" / "0123456789abcdef"
    folder.mkdir(parents=True)
    entry = {"bytes": 1, "sha256": file_digest(tmp_path / "secret")}
    for name in ("../../../secret", str(tmp_path / "secret")):
        (folder / RECORD).write_text(json.dumps({name: entry}))
        (damage,) = verify_folder(folder) or []
        assert "names files outside its folder" in damage


@pytest.mark.parametrize("linked", ["artifact", "folder"])
def test_a_link_that_leads_out_of_a_stage_is_damage(tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "artifact").write_text("x")
    folder = tmp_path / "stages" / "toy" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / linked).symlink_to(outside / "artifact" if linked == "artifact" else outside)
    name = "artifact" if linked == "artifact" else "folder/artifact"
    (folder / RECORD).write_text(json.dumps({name: {"bytes": 1, "sha256": file_digest(outside / "artifact")}}))
    assert verify_folder(folder) == [f"{name} is a link that leads out of the stage's folder"]


def test_removing_a_stage_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    store = Store(tmp_path / "store")
    work = store.root / "work" / "toy-0123456789abcdef"
    work.mkdir(parents=True)
    (work / "checkpoints").symlink_to(outside)
    damaged = store.root / "damaged"
    damaged.mkdir()
    (damaged / "link").symlink_to(outside)
    remove(store, find_waste(store))
    assert (outside / "keep").read_text() == "x"
    assert not work.exists()
    assert not (damaged / "link").is_symlink()


def test_publishing_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    store, stage = Store(tmp_path / "store"), Stage("toy", 1, {"seed": 0})
    (store.open_work(stage, "cpu") / "checkpoints").symlink_to(outside)
    store.publish(stage, {"value": 1}, {}, scratch=("checkpoints",))
    assert (outside / "keep").read_text() == "x"
    assert not (store.folder(stage) / "checkpoints").is_symlink()


def test_links_are_not_uploaded(published: tuple[Store, Stage], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("squeamish")
    store, _ = published
    folder = store.root / "studies" / "tiny-1"
    folder.mkdir(parents=True)
    (folder / "secret.txt").symlink_to(tmp_path / "secret")
    (folder / "trials.json").write_text("[]")
    store.studies.save("tiny-1")
    assert list(objects_of(store).list("studies")) == ["studies/tiny-1/trials.json"]


def test_a_link_in_saved_work_is_no_file_of_the_bundle(tmp_path: Path) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    (tmp_path / "x").write_text("x")
    sent = manifest.send(home, "work/a.json", "work/a", tmp_path, ["x"], {})
    record = json.loads(sent.to_json())
    record["files"]["../../escaped"] = record["files"].pop("x")
    home.write("work/a.json", json.dumps(record).encode())
    with pytest.raises(ValueError, match="names files outside its folder"):
        manifest.read(home, "work/a.json")


def test_tokens_of_elsewhere_cannot_name_shards_outside(tmp_path: Path) -> None:
    from calm_bench.config import Corpus, Markov, Tokens
    from calm_bench.corpora import write_corpus
    from calm_bench.tokens import write_tokens

    write_corpus(Corpus(source="markov", markov=Markov(num_documents=10, document_length=50)), tmp_path / "corpus")
    folder = tmp_path / "tokens"
    write_tokens(Tokens(), tmp_path / "corpus", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["splits"]["train"]["shards"][0]
    (folder / shard["file"]).rename(tmp_path / "moved.arrow")
    for name in ("../moved.arrow", str(tmp_path / "moved.arrow")):
        shard["file"] = name
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(TokensError, match="outside its folder"):
            TokenStream.open(folder, "train")


def test_shards_that_are_kept_elsewhere_are_not_brought_to_a_place_outside(tmp_path: Path) -> None:
    from calm_bench.config import Corpus, Markov, Tokens
    from calm_bench.corpora import write_corpus
    from calm_bench.kept_elsewhere import KeptFile, NotThere, keep_elsewhere
    from calm_bench.tokens import write_tokens
    from calm_bench.tokens.shard_files import ShardFiles

    write_corpus(Corpus(source="markov", markov=Markov(num_documents=10, document_length=50)), tmp_path / "corpus")
    folder, theirs = tmp_path / "tokens", tmp_path / "theirs"
    write_tokens(Tokens(), tmp_path / "corpus", folder)
    theirs.write_text("what somebody else wants to be written")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("../written", str(tmp_path / "written")):
        manifest["splits"]["train"]["shards"][0]["file"] = name
        (folder / "manifest.json").write_text(json.dumps(manifest))
        keep_elsewhere(folder, {name: KeptFile(theirs.as_uri())})
        with pytest.raises(NotThere, match="outside its folder"):
            ShardFiles(folder, "train").bring(0)
        assert not (tmp_path / "written").exists()


def test_an_earlier_corpus_cannot_name_parts_outside(tmp_path: Path) -> None:
    from calm_bench.config import Corpus
    from calm_bench.corpora import read_documents, write_corpus

    def write(folder: str, word: str) -> Corpus:
        (tmp_path / folder).mkdir()
        lines = [json.dumps({"text": f"{word} {number}"}) + "\n" for number in range(400)]
        (tmp_path / folder / "a.jsonl").write_text("".join(lines))
        return Corpus(source=str(tmp_path / folder))

    config = write("texts", "ours")
    write_corpus(config, tmp_path / "earlier")
    kept = list(read_documents(tmp_path / "earlier", "train"))
    write_corpus(write("others", "theirs"), tmp_path / "other")
    # With its digest, it would be taken for the text of the source.
    theirs = {"file": "../other/train.arrow", "sha256": file_digest(tmp_path / "other" / "train.arrow")}
    listed = json.loads((tmp_path / "earlier" / "parts.json").read_text())
    listed["parts"][0]["splits"]["train"] |= theirs
    (tmp_path / "earlier" / "parts.json").write_text(json.dumps(listed))
    write_corpus(config, tmp_path / "new", earlier=[tmp_path / "earlier"])
    assert list(read_documents(tmp_path / "new", "train")) == kept


@pytest.mark.parametrize("name", ["../../etc", "K=4/../../x", "@", "/no/such/folder"])
def test_a_model_is_no_path_made_of_a_label(tmp_path: Path, name: str) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ConfigurationError):
        find_model(name, Store(tmp_path / "store"))
