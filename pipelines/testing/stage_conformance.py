"""What every kind of stages must do and answer.

A kind's test class inherits :class:`StageKindConformance` and names it as
:data:`pipelines.study.stage_kind.STAGE_KINDS` knows it; pytest then runs every test of it, on a stage of a tiny
experiment whose other stages are run once a session::

    from pipelines.testing.stage_conformance import StageKindConformance


    class TestCounting(StageKindConformance):
        name = "counting"
        settings = {"token": 98}
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from calm_bench.config import Experiment
from calm_bench.training_options import DEFAULT_OPTIONS
from pipelines.execution.run_stage import run_stage
from pipelines.execution.worker_process import prepare_process
from pipelines.planning.calibration import Calibration
from pipelines.planning.machines import machine_named
from pipelines.planning.stage_costs import Speeds, cost_context
from pipelines.results.entry import Entry
from pipelines.store.metrics_log import read_lines
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.cost import StageCost, TextSizes
from pipelines.study.graph import stages_for
from pipelines.study.price import price_of
from pipelines.study.row import FinishedStage
from pipelines.study.stage import Interrupted, Stage, StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

TINY: Mapping[str, Any] = {
    "corpus": {"source": "markov", "markov": {"num_documents": 100, "document_length": 200}},
    "autoencoder": {
        "latent_size": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "training": {"num_steps": 6, "batch_size": 2, "sequence_length": 32, "warmup_steps": 2},
    },
    "model": {
        "chunk_size": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_layers": 1,
        "training": {"num_steps": 6, "batch_size": 2, "sequence_length": 32, "warmup_steps": 2},
    },
    "evaluation": {"context_length": 64, "first_position": 16, "position_stride": 16, "num_samples": 4},
    "samples": {"num_prompts": 2, "prompt_tokens": 8, "num_tokens": 8, "temperatures": [1.0]},
}
"""An experiment that trains in seconds."""
HEAVY = ("torch", "transformers", "datasets", "lm_eval")
"""What nobody who plans or watches a study waits for."""


class StageKindConformance:
    """Inherit, set ``name``, and run: identity, run, stop and go on, answers before it runs, answers afterwards."""

    name: ClassVar[str]
    """As :data:`pipelines.study.stage_kind.STAGE_KINDS` knows it."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of its entry in ``extra_stages``, where a study asks for it there."""
    configuration: ClassVar[Mapping[str, Any]] = TINY
    """Settings of an experiment that has such a stage."""
    varying: ClassVar[frozenset[str]] = frozenset({"wall_time_s"})
    """Keys in its result that measure how it went, and differ from run to run."""

    @pytest.fixture
    def kind(self) -> StageKind:
        return STAGE_KINDS.get(self.name)

    @pytest.fixture
    def experiment(self, kind: StageKind) -> Experiment:
        extra = {"extra_stages": [{"kind": self.name, **self.settings}]} if kind.reads else {}
        return Experiment.model_validate({**self.configuration, **extra})

    @pytest.fixture
    def graph(self, experiment: Experiment) -> StageGraph:
        return stages_for(experiment)

    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Store:
        """One for all kinds: equal stages are run once."""
        return Store(tmp_path_factory.getbasetemp() / "stage-conformance")

    @pytest.fixture
    def inputs(self, graph: StageGraph, store: Store) -> dict[str, Path]:
        """Folders of the stages that it reads, each run."""
        stage = graph[self.name]
        _run_all(stage.inputs.values(), store)
        return {name: store.folder(source) for name, source in stage.inputs.items()}

    @pytest.fixture
    def finished(self, kind: StageKind, graph: StageGraph, store: Store, inputs: dict[str, Path]) -> FinishedStage:
        """The stage, run and published, with the results of those before it."""
        stage = graph[self.name]
        result = run_stage(store, stage, kind, StageContext())
        trial = {each.kind: store.result(each) for each in graph.stages if store.is_done(each)}
        return FinishedStage(stage, result, store.folder(stage), store.address(stage), trial)

    def test_its_name_is_the_registered_one(self, kind: StageKind) -> None:
        assert kind.name == self.name

    def test_it_is_imported_without_what_takes_seconds(self, kind: StageKind) -> None:
        module = kind.run.__module__
        script = f"import sys; sys.path[:0] = {sys.path!r}; import {module}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert not set(HEAVY) & set(done.stdout.split())

    def test_its_identity_is_json_and_constant(self, experiment: Experiment, graph: StageGraph) -> None:
        stage = graph[self.name]
        assert json.loads(json.dumps(stage.description())) == stage.description()
        assert stages_for(experiment)[self.name] == stage

    def test_complete_settings_are_settings(self, kind: StageKind) -> None:
        complete = dict(kind.settings(self.settings))
        assert json.loads(json.dumps(complete)) == complete
        assert dict(kind.settings(complete)) == complete

    def test_it_is_priced_before_anything_is_run(
        self, kind: StageKind, experiment: Experiment, graph: StageGraph
    ) -> None:
        stage, price = graph[self.name], price_of(experiment, 257)
        machine = machine_named("local", Execution(backend="local"))
        for sizes in (TextSizes(None, None), TextSizes({"train": 1e5, "test": 1e4}, {"train": 1e5, "test": 1e4})):
            context = cost_context(experiment, graph, price, sizes, Speeds(machine, Calibration()), DEFAULT_OPTIONS)
            cost = kind.cost(stage, context)
            assert isinstance(cost, StageCost)
            for amount in (cost.seconds, cost.disk_bytes, cost.scratch_bytes):
                assert amount is None or 0 <= amount < math.inf
        flops, training = kind.flops(stage, 257), kind.price(stage, 257)
        assert 0 <= flops < math.inf
        assert training is None or training.flops.total == flops
        if kind.workload is not None:
            workload, again = (kind.workload(experiment, 257) for _ in range(2))
            assert workload.kind == self.name
            assert workload.identity == again.identity
            assert workload.label
            assert workload.flops_per_step > 0
            assert workload.speed_at(1e9, 1e9).step > 0

    def test_what_does_not_fit_into_memory_gets_advice(self, kind: StageKind, graph: StageGraph) -> None:
        for strategy in (None, *(("ddp", "fsdp") if kind.data_parallel else ())):
            advice = kind.memory_advice(graph[self.name], strategy)
            assert advice.strip()
            assert "\n" not in advice

    def test_nothing_is_against_a_stage_that_can_run(
        self, kind: StageKind, graph: StageGraph, finished: FinishedStage
    ) -> None:
        stage = graph[self.name]
        known = {name: finished.trial[source.kind] for name, source in stage.inputs.items()}
        assert kind.impossible(stage, Execution(backend="local")) is None
        assert kind.refusal(stage, {}) is None
        assert kind.refusal(stage, known) is None

    def test_its_result_is_json_and_its_files_are_kept(self, kind: StageKind, finished: FinishedStage) -> None:
        assert json.loads(json.dumps(finished.result, allow_nan=False)) == finished.result
        assert finished.folder is not None
        assert not [name for name in kind.artifacts if not (finished.folder / name).is_file()]
        assert not [name for name in kind.scratch if (finished.folder / name).exists()]
        if kind.streams_metrics:
            assert read_lines(self.name, finished.folder)

    def test_another_run_has_the_same_result(
        self, kind: StageKind, finished: FinishedStage, inputs: dict[str, Path], tmp_path: Path
    ) -> None:
        result = kind.run(finished.stage, inputs, tmp_path, _context(kind))
        assert self.computed(result) == self.computed(finished.result)

    def test_a_run_that_is_stopped_goes_on_in_its_folder(
        self, kind: StageKind, finished: FinishedStage, inputs: dict[str, Path], tmp_path: Path
    ) -> None:
        try:
            result = kind.run(finished.stage, inputs, tmp_path, _context(kind, stopped=True))
        except Interrupted:
            result = kind.run(finished.stage, inputs, tmp_path, _context(kind))
        assert self.computed(result) == self.computed(finished.result)

    def test_what_came_of_it_is_told(self, kind: StageKind, finished: FinishedStage) -> None:
        summary = kind.summary(finished.result)
        assert isinstance(summary, str)
        assert "\n" not in summary
        part = kind.row_part(finished)
        assert set(part.fields) <= set(Entry.model_fields)
        keys = [measure.key for measure in part.measures]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & set(Entry.model_fields)
        assert part.training_flops >= 0
        assert part.wall_time_s >= 0
        for point in kind.metrics(finished.result):
            assert math.isfinite(point.value), point
        for name, read in kind.search_metrics.items():
            assert math.isfinite(read(finished.result)), name

    def computed(self, result: Any) -> Any:
        """What of a result does not measure how it went."""
        if isinstance(result, Mapping):
            return {key: self.computed(value) for key, value in result.items() if key not in self.varying}
        # A tuple is a list as soon as it is read back.
        return [self.computed(value) for value in result] if isinstance(result, list | tuple) else result


def _run_all(stages: Iterable[Stage], store: Store) -> None:
    for stage in stages:
        _run_all(stage.inputs.values(), store)
        run_stage(store, stage, STAGE_KINDS.get(stage.kind), StageContext())


def _context(kind: StageKind, stopped: bool = False) -> StageContext:
    return StageContext(prepare_process(kind, "cpu"), lambda: stopped)
