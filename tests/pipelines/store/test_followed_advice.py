"""What messages about a store advise helps: it is taken out of the message itself and done."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from calm_bench.kept_elsewhere import ELSEWHERE, NotThere, kept_elsewhere
from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.common.record_file import RecordError
from pipelines.store.errors import StoreForbidden, StudyBusy
from pipelines.store.estimate_record import ComparedTime, EstimateRecord
from pipelines.store.object_backend import cache_folder
from pipelines.store.opening import open_store
from pipelines.store.store import Store
from pipelines.store.workspace import Workspace
from pipelines.study.stage import Stage


def advised(pattern: str, error: BaseException) -> re.Match[str]:
    found = re.search(pattern, str(error))
    assert found is not None, error
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "cache"))


def test_a_store_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_store("")
    name = advised("name a folder, such as (.+), or leave it out$", refused.value)[1]
    assert open_store(name).root == open_store().root == tmp_path / "runs"
    with pytest.raises(ConfigurationError) as refused:
        open_store("https://host/path")
    for protocol in advised("a store needs (.+) or the like$", refused.value)[1].split(", "):
        assert open_store(f"{protocol}bucket/path").uri.startswith(protocol)
    with pytest.raises(ConfigurationError) as refused:
        open_store("memmory://x").exists()
    protocol = advised(r"did you mean '(\w+)'", refused.value)[1]
    assert not open_store(f"{protocol}://calm-bench-advice").exists()


def test_a_folder_that_can_be_written() -> None:
    Path("taken").touch()
    with pytest.raises(StoreForbidden) as refused:
        Workspace(Path("taken/runs")).check_writable()
    option, variable = advised(r"with (--\w+), or with (\w+) for copies", refused.value).groups()
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    assert option in [name for parameter in command.params for name in parameter.opts]
    Workspace(Path("runs")).check_writable()
    assert variable == "CALM_BENCH_CACHE"
    assert cache_folder("s3://bucket/a").parent == Path("cache").absolute()


def test_a_comparison_of_times_that_is_damaged(tmp_path: Path) -> None:
    time = ComparedTime(count=1, estimated_s=1.0, measured_s=2.0)
    record = EstimateRecord(machine={}, total=time, kinds={}, stages={})
    record.save(tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text("{")
    with pytest.raises(RecordError) as refused:
        EstimateRecord.load(tmp_path)
    named = advised(r"(\S+) is damaged .*remove it; the study's next run", refused.value)[1]
    Path(named).unlink()
    assert EstimateRecord.load(tmp_path) is None
    record.save(tmp_path)
    assert EstimateRecord.load(tmp_path) == record


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"format": 1, "files": {}}',
        '{"format": 2, "files": {"model": ["a", null]}}',
        '{"format": 2, "files": {"../../x": {"url": "a", "sha256": null}}}',
    ],
)
def test_a_copy_that_does_not_say_where_the_rest_is(
    content: str, host: Callable[..., Store], stage: Callable[..., Stage], do: Callable[..., object]
) -> None:
    made = stage("count", seed=5)
    do(host("a"), made)
    store = host("b")
    folder = store.fetch_without(made, ("model/",))
    kept = kept_elsewhere(folder)
    assert list(kept) == ["model/weights.bin"]
    (folder / ELSEWHERE).write_text(content)
    with pytest.raises(NotThere) as refused:
        kept_elsewhere(folder)
    named = advised(
        r"(\S+) (?:names|has|does) .*: remove its folder, which is a copy, and the same command", refused.value
    )
    shutil.rmtree(Path(named[1]).parent)
    assert kept_elsewhere(store.fetch_without(made, ("model/",))) == kept


def test_drivers_keep_their_trials_in_one_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    with store.studies.open("tiny-1"), pytest.raises(StudyBusy) as refused, store.studies.open("tiny-1", "1234"):
        pass
    assert advised(r"all drivers keep the trials in one database \((.+?)\)", refused.value)[1] == (
        "execution.optuna_storage"
    )
    for place in ("1234", None):
        with store.studies.open("tiny-1", place), store.studies.open("tiny-1", place):
            pass
