"""MLflow's own pages in a browser: they open on the leaderboard."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.execution.events import TrialFailed, TrialFinished
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.client import connect
from pipelines.tracking.servers import MlflowServer, free_port
from pipelines.tracking.sync import sync_study
from pipelines.tracking.views import CHARTS, TABLE, charts_page, leaderboard_page, save_views
from tests.pipelines.tracking.conftest import StudyWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("token", {"model.kind": "token"}),
    ("K=2", {"model.chunk_size": 2}),
    ("K=4", {"model.chunk_size": 4}),
]
PATIENCE_MS = 180_000
"""MLflow's pages are megabytes of script, and other work may share the machine."""


@pytest.fixture
def filled(make_outcome: Callable[..., TrialOutcome], empty_database: Path, tmp_path: Path) -> tuple[str, str]:
    """Address of a database that holds three scored trials and a failed one, and its experiment."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    study = Study.model_validate({"name": "k-ablation", "description": "Chunk sizes.", "seed": 3})
    outcomes = [make_outcome(study, number, *setting, range(3)) for number, setting in enumerate(SETTINGS)]
    files = StudyWriter(tmp_path, study, "5f" * 8)
    for outcome in outcomes:
        files.write(TrialFinished(outcome))
    files.write(TrialFailed(TrialOutcome(3, "K=3", {}, "failed", "loss is not finite at http://me:secret@host/")))
    write_leaderboard(Leaderboard(entry_from(outcome, study) for outcome in outcomes), files.folder)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert sync_study(Store(tmp_path), files.folder, uri).problem is None
    return uri, json.loads((files.folder / "mlflow.json").read_text())["experiment_id"]


@pytest.mark.slow
def test_the_study_says_how_it_ended_and_views_are_written_once(filled: tuple[str, str]) -> None:
    uri, experiment = filled
    client = connect(uri)
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    study = runs["k-ablation"].data
    assert study.metrics["best_brierlm"] == runs["token"].data.metrics["brierlm"]
    assert study.metrics["error/best_brierlm"] == 0.4
    assert study.tags["calm_bench.best"] == "token"
    assert study.params["seed"] == "3"
    assert "execution.store" not in study.params
    assert "Chunk sizes." in study.tags["mlflow.note.content"]
    assert study.tags["mlflow.user"] == Path(uri.removeprefix("sqlite:///")).owner()
    assert runs["K=3"].data.tags["mlflow.note.content"] == "**Failed**: loss is not finite at http://***@host/"

    tags = client.get_experiment(experiment).tags
    view = json.loads(tags[f"mlflow.sharedViewState.{TABLE}"])
    state = json.loads(zlib.decompress(b64decode(view["state"].removeprefix("deflate;"))))
    assert state["orderByKey"] == "metrics.`brierlm`"
    assert all(len(tags[f"mlflow.sharedViewState.{key}"]) < 5000 for key in (TABLE, CHARTS))
    save_views(client, experiment)
    assert client.get_experiment(experiment).tags == tags


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page(viewport={"width": 1500, "height": 820})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


@pytest.mark.extended
def test_mlflow_opens_on_trials_by_score_and_on_score_against_flops(
    filled: tuple[str, str], page: Page, tmp_path: Path
) -> None:
    uri, experiment = filled
    pictures = Path(os.environ.get("CALM_BENCH_PICTURES", tmp_path))
    with MlflowServer(uri, tmp_path / "mlartifacts", free_port(0), tmp_path / "mlflow.log") as server:
        server.wait()
        page.goto(leaderboard_page(server.address, experiment))
        page.get_by_role("link", name="K=4").first.wait_for()
        names = [name for name in page.get_by_role("link").all_inner_texts() if name in ("token", "K=2", "K=4", "K=3")]
        assert names[:3] == ["token", "K=2", "K=4"]
        assert "k-ablation" not in names
        heads = " ".join(page.get_by_role("columnheader").all_inner_texts())
        for column in ("brierlm", "error/brierlm", "total_training_flops", "inference_flops_per_token"):
            assert column in heads
        for column in ("model.chunk_size", "model.head.kind"):
            assert column in heads
        _take(page, pictures / "mlflow-leaderboard.png")

        page.goto(charts_page(server.address, experiment))
        page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for(state="attached")
        page.get_by_text("Brier-1 to Brier-4").wait_for()
        text = page.locator("body").inner_text()
        shown = ("Quality against compute", "total_training_flops vs. brierlm", "inference_flops_per_token vs. brierlm")
        places = [text.index(title) for title in (*shown, "Brier-1 to Brier-4")]
        assert places == sorted(places)
        assert page.locator(".js-plotly-plot").first.locator(".scatterlayer .point").count() == 3
        _take(page, pictures / "mlflow-charts.png")


def _take(page: Page, path: Path) -> None:
    """A picture without MLflow's assistant and its word on shared views."""
    for name in ("Close", "Hide banner"):
        if (button := page.get_by_role("button", name=name, exact=True)).count():
            button.first.click()
    page.screenshot(path=path)
