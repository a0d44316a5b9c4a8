"""A kind of stages from another distribution: every command knows it, and nothing else has to be changed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from calm_bench.config import Experiment, ExtraStage
from calm_bench.overrides import ConfigurationError
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import pooled
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.identity import study_identity
from pipelines.study.row import Measure
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

MODULE = '''
"""Counts how often a token stands in the test split: a kind of stages that knows only the contract."""

import json

from pipelines.study.cost import StageCost
from pipelines.study.row import Measure, RowPart
from pipelines.study.stage_kind import MetricPoint, StageKind


def run(stage, inputs, folder, context):
    from calm_bench.tokens import TokenStream

    tokens = TokenStream.open(inputs["tokens"], "test")
    count = sum(int(token) == stage.config["settings"]["token"] for token in tokens[:2000].tolist())
    assert (inputs["language_model"] / "model").is_dir()
    (folder / "count.txt").write_text(str(count))
    return {"count": count}


def settings(given):
    if given.keys() - {"token"}:
        raise ValueError(f"there is no setting {min(given.keys() - {'token'})!r}, only token")
    return {"token": 97, **given}


COUNTING = StageKind(
    "counting",
    run,
    heading="Counts of a token",
    uses_torch=False,
    uses_device=False,
    reads=("tokens", "language_model"),
    settings=settings,
    cost=lambda stage, context: StageCost(61.0, disk_bytes=1000.0),
    summary=lambda result: f"counted {result['count']} of them",
    row_part=lambda finished: RowPart(
        measures=(
            Measure(
                key="times_counted",
                value=finished.result["count"],
                standard_error=0.5,
                heading="Counted",
                better="high",
                description="How often the token stands in the test split.",
            ),
        )
    ),
    search_metrics={"times_counted": lambda result: float(result["count"])},
    metrics=lambda result: [MetricPoint("counting/half", result["count"] / 2, 3)],
    artifacts=("count.txt",),
)
'''

STUDY = """
name: counted
corpus: {source: markov, markov: {num_documents: 100, document_length: 200}}
model:
  {kind: token, hidden_size: 16, intermediate_size: 32, num_layers: 1,
   training: {num_steps: 6, batch_size: 2, sequence_length: 32, warmup_steps: 2}}
evaluation: {context_length: 64, first_position: 16, position_stride: 16, num_samples: 4}
samples: {num_prompts: 0}
extra_stages:
  - {kind: counting, token: 98}
search:
  objectives: [{metric: times_counted, direction: maximize}]
  constraints: [{metric: times_counted, at_most: -1}]
execution: {backend: local}
"""

Command = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study, and with the distribution ``counting`` as an installer leaves it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "counted.yaml").write_text(STUDY)
    site = folder / "site"
    information = site / "counting-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "counting_stage.py").write_text(MODULE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[calm_bench.stage]\ncounting = counting_stage:COUNTING\n")
    return folder


@pytest.fixture(scope="module")
def calm_bench(folder: Path) -> Command:
    """Output of ``calm-bench`` with the given arguments, in a process that can import the distribution."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    path = os.pathsep.join(filter(None, [str(folder / "site"), os.getcwd(), environment.get("PYTHONPATH", "")]))

    def run(*arguments: str, code: int = 0, installed: bool = True) -> str:
        program = [sys.executable, "-c", "from pipelines.app.cli import main; main()"]
        done = subprocess.run(
            [*program, *arguments],
            cwd=folder,
            env=environment | {"COLUMNS": "200", "PYTHONPATH": path if installed else os.getcwd()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.extended
def test_every_command_knows_a_kind_from_elsewhere(calm_bench: Command, folder: Path) -> None:
    (planned,) = [
        stage
        for machine in json.loads(calm_bench("plan", "counted.yaml", "--json"))["estimates"]
        for stage in machine["stages"].values()
        if stage["kind"] == "counting"
    ]
    assert planned["seconds"] == 61.0
    assert planned["label"] == "counting of the token model"

    told = " ".join(calm_bench("run", "counted.yaml").split())
    (result,) = (folder / "runs" / "stages" / "counting").glob("*/result.json")
    count = json.loads(result.read_text())["count"]
    assert "counting of the token model: done in" in told
    assert f"counted {count} of them" in told
    assert "Counted" in told, "a column of the leaderboard"
    assert "How often the token stands in the test split." in told

    (trial,) = json.loads(next((folder / "runs" / "studies").glob("counted-*/trials.json")).read_text())
    assert trial["values"] == [count]
    assert trial["violations"] == [f"times_counted <= -1 (found {count})"]

    assert "counting" in calm_bench("store", "ls")
    assert "counted" in calm_bench("watch", "counted", "--once")

    rows = calm_bench("leaderboard", "--format", "csv", "--columns", "times_counted", "--sort", "times_counted")
    assert rows.splitlines()[0].split(",")[2:5] == ["model", "times_counted", "times_counted_se"]
    assert rows.splitlines()[1].split(",")[3] == str(float(count))
    assert f"{float(count):.2f}±0.50" in calm_bench("leaderboard", "--format", "md")
    calm_bench("report")
    page = next((folder / "runs" / "studies").glob("counted-*/report.html")).read_text()
    assert '"times_counted"' in page
    assert '"Counted"' in page
    assert "Counts of a token" in page

    sent = metrics_in(folder / "runs" / "mlflow.db")
    assert sent["times_counted"] == count
    assert sent["error/times_counted"] == 0.5
    assert sent["counting/half"] == count / 2
    assert [path.read_text() for path in (folder / "runs" / "mlartifacts").rglob("count.txt")] == [str(count)]
    # The report was written again above, so the first one may send it.
    calm_bench("mlflow", "sync")
    assert "already all in" in calm_bench("mlflow", "sync")


@pytest.mark.extended
def test_what_it_left_is_shown_where_it_is_not_installed(calm_bench: Command, folder: Path) -> None:
    assert "Counted" in calm_bench("leaderboard", installed=False)
    assert "counting" in calm_bench("store", "ls", installed=False)
    refused = calm_bench("plan", "counted.yaml", installed=False, code=2)
    assert "unknown kind of stage 'counting'" in refused
    assert "Traceback" not in refused


@pytest.mark.slow
def test_its_settings_are_checked_before_anything_runs(calm_bench: Command) -> None:
    refused = calm_bench("plan", "counted.yaml", "extra_stages=[{kind: counting, tokne: 3}]", code=2)
    assert "extra_stages, kind counting: there is no setting 'tokne', only token" in refused
    assert "Traceback" not in refused


def metrics_in(database: Path) -> dict[str, float]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, float] = {}
    for run in client.search_runs(experiments):
        found |= run.data.metrics
    return found


@pytest.fixture
def counting() -> StageKind:
    """A kind with all defaults, registered in this process."""
    kind = StageKind("plain_counting", lambda *_: {}, reads=("tokens", "language_model", "autoencoder"))
    if kind.name not in STAGE_KINDS.names():
        STAGE_KINDS.register(kind.name, kind)
    return STAGE_KINDS.get(kind.name)


def asking(*extra: dict[str, Any], **settings: Any) -> Experiment:
    return Experiment.model_validate({"extra_stages": list(extra), **settings})


def test_asking_for_no_extra_stages_changes_no_identity() -> None:
    assert "extra_stages" not in Experiment().model_dump(mode="json")
    assert study_identity(Study(name="s")) == study_identity(Study.model_validate({"name": "s", "extra_stages": []}))


def test_an_extra_stage_reads_what_its_kind_says_and_changes_no_other(counting: StageKind) -> None:
    plain, asked = stages_for(Experiment()), stages_for(asking({"kind": counting.name}))
    assert asked.stages[:-1] == plain.stages
    assert dict(asked[counting.name].inputs) == {name: plain[name] for name in counting.reads}
    token = stages_for(asking({"kind": counting.name}, model={"kind": "token"}))
    assert set(token[counting.name].inputs) == {"tokens", "language_model"}, "a token model has no autoencoder"
    other = stages_for(asking({"kind": counting.name}, seed=1))
    assert other[counting.name] != asked[counting.name]
    assert study_identity(Study(name="s")) != study_identity(
        Study(name="s", extra_stages=(ExtraStage(kind=counting.name),))
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([{"kind": "evalution"}], "did you mean 'evaluation'"),
        ([{"kind": "evaluation"}], "part of every study"),
        ([{"kind": "plain_counting", "token": 3}], "it has no settings, found token"),
        ([{"kind": "plain_counting"}, {"kind": "plain_counting"}], "asked for twice"),
    ],
)
@pytest.mark.usefixtures("counting")
def test_what_cannot_be_asked_for_is_said(extra: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stages_for(asking(*extra))


def test_a_measure_is_read_back_and_pooled_over_seeds(make_entry: Callable[..., Entry]) -> None:
    rows = [
        make_entry(seed=seed, configuration="c", measures=(Measure(key="m", value=value, standard_error=0.3),))
        for seed, value in ((0, 1.0), (1, 3.0))
    ]
    assert Leaderboard.from_json(Leaderboard(rows).to_json()).entries == Leaderboard(rows).entries
    assert "measures" not in Leaderboard([make_entry()]).to_json()
    (one,) = pooled(rows)[0].measures
    assert one.value == 2.0
    assert one.standard_error == pytest.approx((0.3**2 + 2.0 / 2) ** 0.5)
    header, line, _ = Leaderboard(rows).to_csv().splitlines()
    assert header.endswith(",m,m_se")
    assert line.endswith(("1.0,0.3", "3.0,0.3"))


def test_a_measure_cannot_take_the_name_of_a_field(make_entry: Callable[..., Entry]) -> None:
    with pytest.raises(ValidationError, match="brierlm is a field of every row"):
        make_entry(measures=(Measure(key="brierlm", value=1.0),))
