"""From what --store says to a store, and what commands show of one that is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.store.object_backend import ObjectBackend, cache_folder
from pipelines.store.opening import open_store
from pipelines.store.store import Store
from pipelines.study.stage import Stage
from tests.object_stores import objects_of

SECRET = "squeamish-ossifrage"


@pytest.mark.parametrize("where", ["runs", "./runs", "a folder/b:c", "/absolute/runs", Path("runs")])
def test_a_folder_is_a_store_as_before(where: str | Path) -> None:
    store = open_store(where)
    assert type(store) is Store
    assert store.root == Path(where).absolute()
    assert store.uri == str(store.root)


def test_the_home_folder_and_the_default_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_store("~/runs").root == open_store().root == open_store("runs").root == tmp_path / "runs"


def test_an_address_is_a_remote_store_with_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path))
    stores = [open_store(where) for where in ("s3://bucket/a", "s3://bucket/a/", "S3://bucket/a", "s3://bucket/b")]
    assert all(isinstance(store.backend, ObjectBackend) for store in stores)
    assert len({store.root for store in stores}) == 2
    assert stores[0].uri == "s3://bucket/a"
    assert open_store("file:///some//where/").uri == "file:///some/where"
    monkeypatch.delenv("CALM_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder("s3://bucket/a").parent == tmp_path / "cache" / "calm-bench"


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("https://host/path", "cannot be written to"),
        ("", "--store is empty: name a folder"),
        ("simplecache::s3://bucket/path", "chains two addresses"),
        ("s3://key:secret@bucket/path", "must not hold"),
        ("s3://bucket/path?endpoint_url=http://127.0.0.1", "must not hold"),
    ],
)
def test_what_cannot_hold_a_store_is_refused(where: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        open_store(where)


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no memmory://; did you mean 'memory'\?"):
        open_store("memmory://x").exists()


@pytest.mark.skipif(find_spec("ossfs") is not None, reason="ossfs is installed")
def test_a_missing_package_is_named() -> None:
    with pytest.raises(ConfigurationError, match="oss:// needs another package: Install ossfs"):
        open_store("oss://bucket/path").exists()


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_commands_work_on_an_address(
    url: str,
    stage: Callable[..., Stage],
    do: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "cache"))
    runner = CliRunner()
    missing = runner.invoke(app, ["store", "ls", "--store", url])
    assert isinstance(missing.exception, ConfigurationError)
    store = open_store(url)
    made = stage(seed=1)
    do(store, made)

    listed = json.loads(runner.invoke(app, ["store", "ls", "--store", url, "--json"]).stdout)
    (row,) = listed["stages"]
    assert (row["identity"], row["folder"]) == (made.identity, f"{url}/stages/count/{made.identity}")
    assert runner.invoke(app, ["store", "verify", "--store", url]).exit_code == 0
    (weights,) = (tmp_path / "home" / "stages").rglob("weights.bin")
    weights.write_text("2")
    damaged = runner.invoke(app, ["store", "verify", "--store", url])
    assert damaged.exit_code == 1
    assert "model/weights.bin has other content than was published" in damaged.stdout
    gone = json.loads(runner.invoke(app, ["store", "gc", "--store", url, "--delete", "--json"]).stdout)
    assert gone["deleted"]
    assert not list((tmp_path / "home").rglob("*.bin"))
    assert not list((tmp_path / "cache").rglob("*.bin"))


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_credentials_are_in_no_file(url: str, stage: Callable[..., Stage], do: Any, tmp_path: Path, host: Any) -> None:
    store = host("a")
    do(store, stage(seed=1))
    with store.studies.open("tiny-1") as folder:
        folder.mkdir(parents=True)
        (folder / "trials.json").write_text("[]")
    contents = [objects_of(store).read(key) for key in objects_of(store).list("")]
    contents += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(contents) > 10
    assert not any(SECRET.encode() in content for content in contents)


@pytest.mark.parametrize("name", ["runs [old]", "all*"])
def test_a_name_by_which_no_object_could_be_read_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\*, \[ and \] are patterns"):
        open_store(f"s3://bucket/{name}")
    assert open_store("s3://bucket/a #1%41\u00fc").uri == "s3://bucket/a #1%41\u00fc"
