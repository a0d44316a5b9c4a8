"""The kinds that ship pass the suite for kinds of stages, and the suite finds what a kind must not do."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from calm_bench.config import Experiment
from pipelines.execution.run_stage import run_stage
from pipelines.store.store import Store
from pipelines.study.cost import StageCost
from pipelines.study.graph import stages_for
from pipelines.study.price import price_of
from pipelines.study.row import FinishedStage, Measure, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, MetricPoint, StageKind
from pipelines.testing.stage_conformance import TINY, StageKindConformance
from tests.evals.own_tasks import write_task

pytestmark = pytest.mark.slow


class TestCorpus(StageKindConformance):
    name = "corpus"


class TestTokens(StageKindConformance):
    name = "tokens"


class TestAutoencoder(StageKindConformance):
    name = "autoencoder"
    varying = frozenset({"wall_time_s", "tokens_per_second"})


class TestLanguageModel(StageKindConformance):
    name = "language_model"
    varying = frozenset({"wall_time_s", "tokens_per_second"})


class TestEvaluation(StageKindConformance):
    name = "evaluation"


class TestSamples(StageKindConformance):
    name = "samples"
    varying = frozenset({"speed"})


class TestTrajectory(StageKindConformance):
    name = "trajectory"
    configuration: ClassVar[Mapping[str, Any]] = {
        **TINY,
        "trajectory": {"snapshots": 2, "max_windows": 3, "num_samples": 2},
    }


class TestBenchmarks(StageKindConformance):
    name = "benchmarks"

    @pytest.fixture
    def experiment(self, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
        folder = tmp_path_factory.getbasetemp() / "own-tasks"
        task = write_task(folder)
        return Experiment.model_validate({**TINY, "benchmarks": {"tasks": [str(task)], "num_samples": 4}})


class TestThePagesExample(StageKindConformance):
    """The kind that ``docs/how-to/own-stage.md`` shows."""

    name = "counting"
    settings: ClassVar[Mapping[str, Any]] = {"token": 98}

    @pytest.fixture(autouse=True)
    def _registered(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path_factory.getbasetemp() / "page"
        folder.mkdir(exist_ok=True)
        page = Path("docs/how-to/own-stage.md").read_text(encoding="utf-8")
        (folder / "my_stages.py").write_text(page.partition("```python\n")[2].partition("```")[0])
        monkeypatch.syspath_prepend(str(folder))
        if self.name not in STAGE_KINDS.names():
            STAGE_KINDS.register(self.name, "my_stages:COUNTING")


def test_every_kind_that_ships_is_tested() -> None:
    tested = {each.name for each in StageKindConformance.__subclasses__() if hasattr(each, "name")}
    assert set(STAGE_KINDS.built_in) <= tested


def run_sound(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Goes on from what an attempt that was stopped left."""
    kept = folder / "checkpoints" / "half"
    if not kept.exists():
        kept.parent.mkdir()
        kept.touch()
        if context.stop():
            raise Interrupted("stopped at half")
    (folder / "told.txt").write_text("told")
    return {"count": len(inputs), "wall_time_s": random.random()}


def run_noisy(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    return run_sound(stage, inputs, folder, context) | {"count": random.random()}


def run_forgetful(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    before = (folder / "checkpoints" / "half").exists()
    return run_sound(stage, inputs, folder, context) | {"count": int(before)}


def run_heavy(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    return {}


run_heavy.__module__ = "calm_bench.lm"

SOUND = StageKind(
    "sound",
    run_sound,
    reads=("tokens",),
    uses_torch=False,
    artifacts=("told.txt",),
    settings=lambda given: {"at": 1, **given},
    cost=lambda stage, context: StageCost(1.0),
    row_part=lambda finished: RowPart(measures=(Measure(key="counted", value=finished.result["count"]),)),
    search_metrics={"counted": lambda result: float(result["count"])},
)
PRICE = price_of(Experiment.model_validate(TINY), 257).model


def checks(kind: StageKind, test: str, store: Store, folder: Path) -> None:
    """Run one test of the suite on ``kind``, which is registered for it."""
    name = f"conforming_{len(STAGE_KINDS.names())}"
    kind = replace(kind, name=name)
    STAGE_KINDS.register(name, kind)
    suite = StageKindConformance()
    suite.name = name  # type: ignore[misc]
    experiment = Experiment.model_validate({**TINY, "extra_stages": [{"kind": name}]})
    graph = stages_for(experiment)
    stage = graph[name]
    for before in graph.stages[:2]:
        run_stage(store, before, STAGE_KINDS.get(before.kind), StageContext())
    given: dict[str, Any] = {"kind": kind, "experiment": experiment, "graph": graph, "tmp_path": folder}
    given["inputs"] = {source: store.folder(stage.inputs[source]) for source in stage.inputs}
    wanted = inspect.signature(getattr(suite, test)).parameters
    if "finished" in wanted:
        result = run_stage(store, stage, kind, StageContext())
        trial = {each.kind: store.result(each) for each in graph.stages if store.is_done(each)}
        given["finished"] = FinishedStage(stage, result, store.folder(stage), store.address(stage), trial)
    getattr(suite, test)(**{name: given[name] for name in wanted})


ANSWERS = "test_what_came_of_it_is_told"
PRICED = "test_it_is_priced_before_anything_is_run"


@pytest.mark.parametrize(
    ("changes", "test"),
    [
        ({"run": run_heavy}, "test_it_is_imported_without_what_takes_seconds"),
        ({"settings": lambda given: {"at": given.get("at", 0) + 1}}, "test_complete_settings_are_settings"),
        ({"cost": lambda stage, context: StageCost(-1.0)}, PRICED),
        ({"price": lambda stage, size: PRICE}, PRICED),
        ({"memory_advice": lambda stage, strategy: ""}, "test_what_does_not_fit_into_memory_gets_advice"),
        ({"refusal": lambda stage, results: "never"}, "test_nothing_is_against_a_stage_that_can_run"),
        ({"artifacts": ("missing.txt",)}, "test_its_result_is_json_and_its_files_are_kept"),
        ({"streams_metrics": True}, "test_its_result_is_json_and_its_files_are_kept"),
        ({"run": run_noisy}, "test_another_run_has_the_same_result"),
        ({"run": run_forgetful}, "test_a_run_that_is_stopped_goes_on_in_its_folder"),
        ({"summary": lambda result: "two\nlines"}, ANSWERS),
        ({"row_part": lambda finished: RowPart({"no_such_field": 1})}, ANSWERS),
        ({"row_part": lambda finished: RowPart(measures=(Measure(key="brierlm", value=1.0),))}, ANSWERS),
        ({"metrics": lambda result: [MetricPoint("a", float("nan"))]}, ANSWERS),
        ({"search_metrics": {"a": lambda result: float("inf")}}, ANSWERS),
    ],
)
def test_a_fault_is_found(changes: dict[str, Any], test: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "stage-conformance")
    checks(SOUND, test, store, tmp_path_factory.mktemp("sound"))
    with pytest.raises(AssertionError):
        checks(replace(SOUND, **changes), test, store, tmp_path_factory.mktemp("faulty"))
