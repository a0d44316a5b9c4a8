"""Passwords and tokens reach no file and no message."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from calm_bench.config import Experiment
from pipelines.app import cli
from pipelines.common.redact import redact
from pipelines.execution.interrupt import this_command
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.store.opening import open_store
from pipelines.store.store import Store
from pipelines.store.study_record import resolved_yaml
from pipelines.store.workspace import ERROR
from pipelines.study.config import Study
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind

SECRET = "squeamish/ossifrage+0123"
"""With what secret keys of object stores may hold."""
PLAIN = "squeamish-ossifrage-0123"
ADDRESSES = [
    f"https://somebody:{PLAIN}@host:5000/path",
    f"https://{PLAIN}@host/path",
    f"postgresql://somebody:{SECRET}@host/database",
    f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/path",
    f"s3://bucket/path?AWS_SECRET_ACCESS_KEY={SECRET}",
    f"https://bucket.host/path?X-Amz-Signature={PLAIN}&X-Amz-Security-Token={PLAIN}",
    f"ray://host:10001?token={PLAIN}",
]


def shows(text: str) -> bool:
    return any(part in text for part in ("squeamish", "ossifrage"))


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_is_masked(address: str) -> None:
    told = redact(f"cannot open {address}: refused")
    assert not shows(told)
    assert told.startswith("cannot open ")
    assert told.endswith("refused")


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/1",
        "http://host:5000/a@b",
        "s3://bucket/runs/stages/language_model/0123/model",
        "K=4@1 of s3://bucket/runs",
        "/home/somebody@work/runs",
        "https://host/path?kind=CALM&step=3",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert redact(text) == text or text == "http://host:5000/a@b"


def test_values_of_secret_variables_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"):
        monkeypatch.setenv(name, PLAIN)
        assert redact(f"401 for Bearer {PLAIN}!") == "401 for Bearer ***!"
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOME_TOKEN", "disabled")
    assert redact("the cache is disabled") == "the cache is disabled"


SECTIONS = {
    "tracking.uri": lambda address: {"tracking": {"uri": address}},
    "execution.address": lambda address: {"execution": {"address": address}},
    "execution.optuna_storage": lambda address: {"execution": {"optuna_storage": address}},
    "execution.store": lambda address: {"execution": {"store": address}},
    "corpus.source": lambda address: {"corpus": {"source": address}},
    "tokens.tokenizer": lambda address: {"tokens": {"tokenizer": address}},
    "description": lambda address: {"description": f"from {address}"},
    "a choice": lambda address: {
        "search": {"parameters": [{"name": "data", "choices": {"there": {"corpus.source": address}}}]}
    },
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("key", SECTIONS)
def test_the_resolved_configuration_holds_none(key: str, address: str) -> None:
    study = Study.model_validate({"name": "tiny", **SECTIONS[key](address)})
    text = resolved_yaml(study)
    assert not shows(text)
    assert "***" in text
    # And it can be read back.
    Study.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("address", [address for address in ADDRESSES if address.startswith(("s3", "https"))])
@pytest.mark.parametrize("command", ["run smoke", "leaderboard", "store ls", "plan smoke", "eval K=4"])
def test_a_store_s_address_with_credentials_is_refused_without_repeating_it(
    command: str, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["calm-bench", *command.split(), "--store", address])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert not shows(told.out + told.err)
    assert "AWS_ACCESS_KEY_ID" in told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["tracking.uri", "execution.address", "corpus.source"])
def test_the_command_that_goes_on_is_shown_without_them(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["calm-bench", "run", "smoke", f"{key}={ADDRESSES[0]}"])
    assert not shows(this_command())
    assert "run smoke" in this_command()


@pytest.mark.parametrize("error", ["ConfigurationError", "CorpusError", "StoreError", "ValueError"])
def test_no_error_of_a_command_shows_them(
    error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = type(error, (Exception,), {})

    def fail() -> None:
        raise kind(f"cannot read {ADDRESSES[0]} or {ADDRESSES[3]}")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("sys.argv", ["calm-bench", "run", f"tracking.uri={ADDRESSES[0]}"])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().err
    assert not shows(told)
    assert "cannot read https://***@host:5000/path" in told


def _fails(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    raise RuntimeError(f"401 from {ADDRESSES[0]} with {os.environ['HF_TOKEN']}")


def _works(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    return {"value": 1}


def test_neither_a_stage_s_error_nor_its_provenance_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, PLAIN)
    store = Store(tmp_path)
    stage = Stage("toy", 1, {"seed": 0})
    with pytest.raises(StageError) as caught:
        run_stage(store, stage, StageKind("toy", _fails, uses_torch=False), StageContext())
    assert not shows(f"{caught.value} {caught.value.details} {caught.value!r}")
    kept = (store.work_folder(stage) / ERROR).read_text()
    assert not shows(kept)
    assert "401 from https://***@host:5000/path with ***" in kept
    run_stage(store, stage, StageKind("toy", _works, uses_torch=False), StageContext())
    for path in store.root.rglob("*"):
        if path.is_file():
            assert not shows(path.read_text(errors="replace")), path


def test_a_corpus_by_an_address_is_refused_without_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "smoke", f"corpus.source={ADDRESSES[0]}/text.jsonl", "--local", "--store", "here"]
    monkeypatch.setattr("sys.argv", ["calm-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code in (1, 2)
    assert not shows(told.out + told.err)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not shows(path.read_text(errors="replace")), path


def test_no_new_key_may_hold_an_address_unseen() -> None:
    """Every text of a configuration is masked, so a key that is added later is too."""
    marked = Study.model_validate({"name": "tiny", "extra_stages": [{"kind": "toy", "address": "here"}]}).model_dump(
        mode="json"
    )

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else ADDRESSES[0]

    from pipelines.store.study_record import _redacted_within

    assert not shows(str(_redacted_within(fill(marked))))
    assert Experiment.model_fields.keys() <= marked.keys()


def test_the_environment_is_where_credentials_belong() -> None:
    assert open_store("s3://bucket/path").uri == "s3://bucket/path"
    assert open_store("sftp://host:22/path").uri == "sftp://host:22/path"
