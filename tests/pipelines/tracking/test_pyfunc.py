"""Registered versions that MLflow loads: by a reference to the store, or from a copy that MLflow keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

import calm_bench as cb
from calm_bench.overrides import ConfigurationError
from pipelines.app.entrance.pyfunc import _load_pyfunc
from tests.pipelines.scoring.test_exporting import SMALL
from tests.pipelines.tracking.test_moved_store import sync_apart

WRITE = {"max_new_tokens": 16, "temperature": 0.5, "seed": 3}


def run(store: Path, *settings: str) -> cb.StudyResult:
    study = [*SMALL, "samples.num_prompts=1", "corpus.markov.num_documents=120", *settings]
    return cb.Study.from_yaml("smoke", *study, store=store).run(local=True, quiet=True)


@pytest.fixture(scope="module", autouse=True)
def quiet_surroundings() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        before = mlflow.get_tracking_uri()
        yield
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("pyfunc") / "s"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def result(store: Path) -> cb.StudyResult:
    return run(store)


@pytest.fixture
def version(store: Path, result: cb.StudyResult) -> str:
    """Address of the version of K=2."""
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    (found,) = [one for one in MlflowClient().search_model_versions() if one.tags["model"] == "K=2"]
    return f"models:/{found.name}/{found.version}"


def artifacts(version: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=version))


@pytest.mark.slow
def test_a_version_writes_what_the_model_in_the_store_writes(
    version: str, result: cb.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = result.load_model("K=2")
    expected = [own.generate(prompt, **WRITE) for prompt in ("ab", "bc")]
    loaded = mlflow.pyfunc.load_model(version)
    assert loaded.predict(["ab", "bc"], params=WRITE) == expected
    assert loaded.predict(pd.DataFrame({"prompt": ["ab", "bc"]}), params=WRITE) == expected
    assert loaded.predict("ab", params=WRITE) == expected[:1]
    assert "".join(loaded.predict_stream("ab", params=WRITE)) == expected[0]


@pytest.mark.slow
def test_a_version_is_a_reference_and_no_code(version: str) -> None:
    folder = artifacts(version)
    # What is downloaded says which version it is, too.
    written = {path.name for path in folder.rglob("*")} - {"registered_model_meta"}
    assert written == {"MLmodel", "provenance.json", "reference.json"}
    assert json.loads((folder / "reference.json").read_text()).keys() == {"identity", "label"}


@pytest.mark.slow
def test_a_store_elsewhere_is_named(
    version: str, store: Path, result: cb.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifacts(version)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(ConfigurationError, match=r"is not in .* or runs: name its store.*model_config"):
        mlflow.pyfunc.load_model(str(folder))
    expected = result.load_model("K=2").generate("ab", **WRITE)
    found = mlflow.pyfunc.load_model(str(folder), model_config={"store": str(store)})
    assert found.predict("ab", params=WRITE) == [expected]
    # As it is for commands, runs is the store of the folder in which one works.
    (tmp_path / "runs").symlink_to(store)
    assert mlflow.pyfunc.load_model(str(folder)).predict("ab", params=WRITE) == [expected]


@pytest.mark.slow
def test_a_version_of_a_moved_store_is_loaded_by_another_process_from_another_folder(
    store: Path, result: cb.StudyResult, tmp_path: Path
) -> None:
    """As a copy that is used alone: its database led to the old place until it was made again."""
    expected = result.load_model("K=2").generate("ab", **WRITE)
    after, elsewhere = tmp_path / "after", tmp_path / "elsewhere"
    shutil.copytree(store, after, symlinks=True)
    elsewhere.mkdir()
    sync_apart(after, "--anew")
    program = (
        "import sys, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "versions = mlflow.MlflowClient().search_model_versions()\n"
        "(found,) = [one for one in versions if one.tags['model'] == 'K=2']\n"
        "assert sys.argv[2] in mlflow.get_run(found.run_id).info.artifact_uri\n"
        "model = mlflow.pyfunc.load_model(f'models:/{found.name}/{found.version}')\n"
        f"print(ascii(model.predict('ab', params={WRITE})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{after / 'mlflow.db'}", str(after)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [ascii([expected])], done


@pytest.mark.slow
def test_a_reference_leads_out_of_no_store(store: Path, result: cb.StudyResult, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(result.load_model("K=2").folder.parent, outside)
    (tmp_path / "a").mkdir()
    shutil.copytree(store / "stages", tmp_path / "s" / "stages", symlinks=True)
    assert (tmp_path / "s" / "stages" / "language_model" / "../../../outside").resolve() == outside
    (tmp_path / "a" / "reference.json").write_text(json.dumps({"identity": "../../../outside"}))
    with pytest.raises(ConfigurationError, match="is not in"):
        _load_pyfunc(str(tmp_path / "a"), {"store": str(tmp_path / "s")})


@pytest.mark.slow
def test_a_copy_needs_no_store(version: str, store: Path, result: cb.StudyResult, tmp_path: Path) -> None:
    before = artifacts(version)
    expected = result.load_model("K=2").generate("ab", **WRITE)
    assert run(store, "tracking.log_models=true").folder == result.folder
    after = artifacts(version)
    assert not (before / "model").exists()
    assert (after / "model" / "model.safetensors").is_file()
    moved = shutil.copytree(after, tmp_path / "moved")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'empty.db'}")
    assert mlflow.pyfunc.load_model(str(moved)).predict("ab", params=WRITE) == [expected]
