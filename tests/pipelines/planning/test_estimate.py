"""Time, memory and disk of a plan: nothing for what is there, all parts told, and words where it does not fit."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment
from pipelines.common.numbers import MISSING, duration
from pipelines.execution.events import StageCached, StageFinished, StudyStarted
from pipelines.planning.calibration import Calibration, Measured
from pipelines.planning.estimate import Estimate, estimate
from pipelines.planning.forecast import Forecast, forecast
from pipelines.planning.machines import Machine, machine_named
from pipelines.planning.plan import Plan, PlannedStage, PlannedTrial, workloads_in
from pipelines.planning.planner import plan_study
from pipelines.planning.stage_costs import assumed_speed
from pipelines.report.estimate_table import machine_lines
from pipelines.report.estimates import estimates_of
from pipelines.store.estimate_record import ESTIMATE_FILE, PLAN_FILE
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS
from pipelines.study.workload import Speed


def two_workers(study: Study) -> Machine:
    return replace(machine_named("local", study.execution), parallelism=2, memory_bytes=16e9)


def estimated(plan: Plan, store: Store, calibration: Calibration | None = None, machine: str = "local") -> Estimate:
    named = two_workers(plan.study) if machine == "local" else machine_named(machine, plan.study.execution)
    return estimate(plan, store, named, calibration or Calibration())


def finish(store: Store, stage: Any, **result: Any) -> None:
    store.open_work(stage, "cpu")
    store.publish(stage, result, {})


def test_four_rows_of_the_default_study_take_what_they_took_on_two_idle_cores(tmp_path: Path) -> None:
    """Measured once on the machine that the assumed rates come from: 5:33, and each language model 105 to 113 s."""
    study = resolve_study("k-ablation", ["preset=tiny", "search.parameters.0.include=[token,K=1,K=2,K=4]"])
    plan, store = plan_study(study, Store(tmp_path)), Store(tmp_path)
    found = estimated(plan, store)
    assert found.seconds == pytest.approx(333, rel=0.25)
    models = [cost.seconds for stage, cost in found.costs.items() if stage.kind == "language_model"]
    assert models == pytest.approx([109] * 4, rel=0.25)
    assert found.work_seconds / 2 < found.seconds < found.work_seconds
    assert found.disk_bytes == pytest.approx(22e6, rel=0.25)
    assert found.unknown == ()


def test_what_is_in_the_store_costs_nothing(tmp_path: Path) -> None:
    study, store = resolve_study("smoke"), Store(tmp_path)
    before = estimated(plan_study(study, store), store)
    for planned in plan_study(study, store).stages:
        if planned.stage.kind == "corpus":
            finish(store, planned.stage, bytes={"train": 60000, "validation": 4000, "test": 8000})
        elif planned.stage.kind == "tokens":
            finish(store, planned.stage, vocab_size=257, tokens={"train": 60000, "validation": 4000, "test": 8000})
        elif planned.stage.kind == "autoencoder":
            finish(store, planned.stage)
    after = estimated(plan_study(study, store), store)
    assert {stage.kind for stage in after.spans} == {"language_model", "evaluation", "samples"}
    assert after.seconds < before.seconds
    assert after.disk_bytes < before.disk_bytes
    for planned in plan_study(study, store).stages:
        if planned.state != "cached":
            finish(store, planned.stage)
    done = estimated(plan_study(study, store), store)
    assert not done.spans
    assert done.disk_bytes == done.work_seconds == 0
    assert "nothing is left to run" in "\n".join(machine_lines(done))


def test_measured_speeds_are_used_and_named(tmp_path: Path) -> None:
    plan, store = plan_study(resolve_study("smoke"), Store(tmp_path)), Store(tmp_path)
    workloads = workloads_in(plan)
    assert [workload.label for workload in workloads] == ["token model", "autoencoder K=2", "language model K=2"]
    tenfold = {}
    for workload in workloads:
        speed = Speed(**{name: 10 * value for name, value in vars(assumed_speed(workload)).items()})
        tenfold[workload.identity] = Measured.of(workload, speed)
    slow = estimated(plan, store, Calibration(tenfold, measured="2026-01-31T10:00:00+00:00"))
    fast = estimated(plan, store)
    for stage, cost in slow.costs.items():
        own = fast.costs[stage].seconds
        assert own is not None
        assert cost.seconds is not None
        if STAGE_KINDS.get(stage.kind).uses_torch:
            assert cost.seconds > 3 * own
    assert "as measured on 2026-01-31" in machine_lines(slow)[0]
    assert "--calibrate measures this machine" in machine_lines(fast)[0]
    del tenfold[workloads[0].identity]
    partly = estimated(plan, store, Calibration(tenfold, measured="2026-01-31T10:00:00+00:00"))
    assert "scaled from models measured on 2026-01-31" in machine_lines(partly)[0]


@pytest.mark.slow
def test_a_search_is_priced_over_its_space(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study = resolve_study("tune-head", ["search.num_trials=3", "final=null"])
    found = estimated(plan_study(study, store), store)
    longer = estimated(plan_study(resolve_study("tune-head", ["search.num_trials=6", "final=null"]), store), store)
    spread = found.sampled_seconds
    assert spread is not None
    assert 0 < spread.lowest <= spread.median <= spread.highest
    assert found.seconds < longer.seconds < 2.2 * found.seconds
    # Six trials of one of two chunk sizes share at most two autoencoders.
    assert sum(stage.kind == "autoencoder" for stage in found.spans) <= 2
    assert sum(stage.kind == "language_model" for stage in found.spans) == 6
    assert "a trial " in "\n".join(machine_lines(found))
    # Sixty trials are played through, and the rest goes by their number.
    hundreds = estimated(plan_study(resolve_study("tune-head", ["search.num_trials=300", "final=null"]), store), store)
    assert sum(stage.kind == "language_model" for stage in hundreds.spans) == 60
    assert hundreds.repeats == 10.0
    assert 50 < hundreds.seconds / found.seconds < 110
    assert hundreds.work_seconds == pytest.approx(100 * found.work_seconds, rel=0.4)
    # With three seeds of the best and the first settings of each K twelve more trainings.
    with_final = estimated(plan_study(resolve_study("tune-head", ["search.num_trials=3"]), store), store)
    assert with_final.work_seconds == pytest.approx(3 * found.work_seconds, rel=0.3)


def test_gpus_get_hours_and_hear_what_does_not_fit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(resolve_study("paper-k-ablation"), store)
    one, eight = (estimated(plan, store, machine=name) for name in ("h100", "h100x8"))
    assert one.gpu_hours == pytest.approx(8.13e21 / (0.25 * 9.89e14) / 3600, rel=0.1)
    assert eight.gpu_hours is not None
    assert eight.gpu_hours == pytest.approx(one.gpu_hours, rel=0.01)
    assert eight.seconds < one.seconds / 2
    text = "\n".join(machine_lines(eight, price_per_hour=20.0))
    assert eight.gpu_hours is not None
    assert eight.energy_kwh == pytest.approx(0.7 * eight.gpu_hours)
    assert f"{eight.seconds / 3600 * 20:,.2f} at 20 an hour" in text
    assert "kWh at a board's rated 700 W" in text
    assert "a share assumed by kind of model, nothing compiled, of the peak of 9.89e14 FLOP/s (--mfu)" in text
    assert "not known before" in text
    assert "TOO MUCH: the GPU" not in text
    assert re.search(r"sequences at once \(execution\.micro_batch\): .*language model K=4 8 of 16", text)
    assert json.loads(json.dumps(eight.to_dict()))["not_estimated"]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["execution.micro_batch=64"], "execution.micro_batch=auto divides its micro-batches until they fit"),
        (["search.fixed.model.hidden_size=65536"], "Not even one sequence fits: lower the model's"),
    ],
)
def test_what_does_not_fit_a_gpu_hears_what_would(settings: list[str], advice: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(resolve_study("paper-k-ablation", settings), store)
    text = "\n".join(machine_lines(estimated(plan, store, machine="h100")))
    assert "TOO MUCH: the GPU has 80 GB. " + advice in text


def test_what_a_gpu_hears_takes_less_memory(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def needed(*settings: str, machine: str = "h100") -> tuple[float, str]:
        study = resolve_study("paper-k-ablation", ["search.parameters.0.include=[CALM-L K=4]", *settings])
        found = estimated(plan_study(study, store), store, machine=machine)
        return found.worker_bytes, "\n".join(machine_lines(found))

    many, text = needed("execution.micro_batch=64")
    (way,) = re.findall(r"TOO MUCH: .* (execution\.micro_batch=\w+) divides", text)
    assert needed(way)[0] < many
    assert "TOO MUCH: the GPU" not in needed(way)[1]
    large = "search.fixed.model.hidden_size=65536"
    before, text = needed(large)
    ways = [re.findall(r"execution\.\w+=\w+", way) for way in re.findall(r"\((execution[^)]+)\)", text)]
    ways = [way for way in ways if way]
    assert len(ways) == 2
    for settings in ways:
        assert needed(large, *settings, machine="h100x8")[0] < before, settings


@pytest.mark.slow
def test_a_run_does_not_keep_its_plan(tmp_path: Path) -> None:
    """Of two thousand trials it is a hundred megabytes, in a driver that may have five."""
    study, store, folder = resolve_study("k-ablation"), Store(tmp_path), tmp_path / "studies" / "k-ablation"
    folder.mkdir(parents=True)
    before = {id(one) for one in _alive()}
    watcher = forecast(study, store, lambda text: None, may_measure=False)
    assert {type(one) for one in _alive() if id(one) not in before} == set(OF_A_PLAN), "a plan is made of these"
    watcher.handle(StudyStarted(study.name, "0" * 16, folder, 4))
    assert (folder / PLAN_FILE).is_file()
    assert [one for one in _alive() if id(one) not in before] == []
    assert watcher.runs_anything


OF_A_PLAN = (Plan, Estimate, PlannedTrial, PlannedStage, StageGraph, Stage, Experiment)


def _alive() -> list[Any]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in OF_A_PLAN]


def test_after_a_run_the_estimate_stands_beside_the_outcome(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(resolve_study("smoke"), store)
    expected = estimated(plan, store)
    watcher = Forecast(plan, expected, assumed_speed)
    folder = tmp_path / "studies" / "smoke"
    assert watcher.finish(folder) is None
    folder.mkdir(parents=True)
    watcher.handle(StudyStarted("smoke", "0" * 16, folder, 2))
    assert json.loads((folder / PLAN_FILE).read_text())["estimates"][0]["seconds"] == expected.seconds
    models = [stage for stage in expected.spans if stage.kind == "language_model"]
    for stage in models:
        span = expected.spans[stage]
        watcher.handle(StageFinished(stage, folder, {}, 2 * (span.end - span.start)))
    outcome = watcher.finish(folder)
    assert outcome is not None
    assert outcome.kinds["language_model"].count == 2
    assert "(estimate 50 % too low)" in "\n".join(outcome.lines())
    kept = json.loads((folder / ESTIMATE_FILE).read_text())
    assert kept["kinds"]["language_model"]["error"] == pytest.approx(-0.5)
    assert {entry["label"] for entry in kept["stages"].values()} == {str(stage) for stage in models}


def test_a_time_that_nobody_knew_is_no_estimate_of_nothing(tmp_path: Path) -> None:
    """It was shown as ``0 s estimated`` and ``100 % too low``, and the total was judged as if it had been in it."""
    store = Store(tmp_path)
    plan = plan_study(resolve_study("smoke", ["benchmarks.tasks=[stdlib_choice]"]), store)
    expected = estimated(plan, store)
    tasks = [stage for stage in expected.spans if stage.kind == "benchmarks"]
    assert len(tasks) == 2
    watcher = Forecast(plan, expected, assumed_speed)
    for stage, span in expected.spans.items():
        watcher.handle(StageFinished(stage, tmp_path, {}, 30.0 if stage in tasks else span.end - span.start))
    outcome = watcher.finish(tmp_path)
    assert outcome is not None
    total, *kinds = outcome.lines()
    assert total.startswith(f"{duration(expected.seconds)} estimated without 2 stages whose time was not known before")
    assert "  2 x benchmarks: 1:00 taken, not known before" in kinds
    assert "too low" not in "".join([total, *kinds])
    kept = json.loads((tmp_path / ESTIMATE_FILE).read_text())
    assert kept["kinds"]["benchmarks"]["error"] is kept["total"]["error"] is None
    assert kept["kinds"]["benchmarks"]["not_estimated"] == kept["total"]["not_estimated"] == 2
    assert "not_estimated" not in kept["kinds"]["language_model"]
    cells = {one.kind: list(one.cells) for one in estimates_of(tmp_path)}
    assert cells["benchmarks"][1:] == [MISSING, "1:00", MISSING]
    assert cells["total"][-1] == MISSING


def test_what_another_driver_ran_is_no_part_of_the_comparison(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(resolve_study("smoke"), store)
    expected = estimated(plan, store)
    watcher = Forecast(plan, expected, assumed_speed)
    ours, theirs = [stage for stage in expected.spans if stage.kind == "language_model"]
    for stage in expected.spans:
        if stage.kind != "language_model":
            watcher.handle(StageCached(stage, tmp_path, {}))
    watcher.handle(StageFinished(theirs, tmp_path, {}, 1e-3, elsewhere=True))
    assert watcher.finish(tmp_path) is None, "nothing was run here"
    span = expected.spans[ours]
    watcher.handle(StageFinished(ours, tmp_path, {}, span.end - span.start))
    outcome = watcher.finish(tmp_path)
    assert outcome is not None
    assert [(kind, each.count) for kind, each in outcome.kinds.items()] == [("language_model", 1)]
    assert outcome.kinds["language_model"].record().error == pytest.approx(0)
    assert outcome.total.elsewhere == len(expected.spans) - 1
    assert "too " not in "\n".join(outcome.lines())
    (total, *_) = estimates_of(tmp_path)
    assert total.cells[-1] == MISSING
