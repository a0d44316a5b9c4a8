"""A kind of stages from elsewhere that trains: plans price it by its own speed, and tell its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Training
from calm_bench.flops import CostBreakdown
from pipelines.planning.calibration import Calibration, Measured, load_calibration, save_calibration
from pipelines.planning.estimate import estimate
from pipelines.planning.machines import machine_named
from pipelines.planning.measuring import worth_measuring
from pipelines.planning.plan import workloads_in
from pipelines.planning.planner import plan_study
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study
from pipelines.study.cost import CostContext, StageCost
from pipelines.study.price import TrainingPrice
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from pipelines.study.workload import Speed, Workload

HERE = machine_named("local", Execution(backend="local"))
STEPS = 40


class JudgeWorkload(Workload):
    """A small judge, of 1e9 FLOPs a step."""

    kind = "judge"

    @property
    def label(self) -> str:
        return "judge"

    @property
    def training(self) -> Training:
        return self.experiment.model.training

    @property
    def work(self) -> Speed:
        return Speed(1e9, 0.0)

    @property
    def calls(self) -> Speed:
        return Speed(0.25, 0.0)

    @property
    def content(self) -> dict[str, Any]:
        return {"layers": 2}


def price(stage: Stage, vocab_size: int) -> TrainingPrice:
    return TrainingPrice(CostBreakdown({"judge": 5.0}), STEPS, 7, CostBreakdown({"judge": STEPS * 1e9}))


def cost(stage: Stage, context: CostContext) -> StageCost:
    workload = context.workloads["judge"]
    return StageCost(STEPS * context.speed_of(workload).step, measured=context.is_measured(workload))


@pytest.fixture
def judge() -> StageKind:
    kind = StageKind(
        "judge",
        lambda *_: {},
        reads=("tokens",),
        flops=lambda stage, vocab_size: price(stage, vocab_size).flops.total,
        price=price,
        cost=cost,
        workload=JudgeWorkload,
        measure=lambda workload, device, seconds: Speed(0.5, 0.0),
    )
    if kind.name not in STAGE_KINDS.names():
        STAGE_KINDS.register(kind.name, kind)
    return STAGE_KINDS.get(kind.name)


@pytest.fixture
def study(judge: StageKind) -> Study:
    return Study.model_validate({"name": "judged", "model": {"kind": "token"}, "extra_stages": [{"kind": judge.name}]})


def test_it_is_priced_by_its_own_speed(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(study, store)
    (own,) = [workload for workload in workloads_in(plan) if workload.kind == "judge"]
    assert worth_measuring([own], HERE) == [own]

    def told(calibration: Calibration) -> StageCost:
        (found,) = [c for stage, c in estimate(plan, store, HERE, calibration).costs.items() if stage.kind == "judge"]
        return found

    assumed = told(Calibration())
    assert assumed.seconds == pytest.approx(STEPS * (1e9 / HERE.flops_per_second + 0.25))
    assert not assumed.measured
    path = tmp_path / "calibration.json"
    save_calibration(HERE, Calibration({own.identity: Measured.of(own, Speed(0.5, 0.0))}), path)
    measured = told(load_calibration(HERE, path))
    assert measured.seconds == STEPS * 0.5
    assert measured.measured


def test_a_plan_tells_its_training(study: Study, tmp_path: Path) -> None:
    told = plan_study(study, Store(tmp_path)).to_dict()
    (trial,) = told["trials"]
    assert list(trial["trainings"]) == ["language_model", "judge"]
    assert trial["trainings"]["judge"] == {
        "parameters": 5.0,
        "steps": STEPS,
        "tokens": 7,
        "flops": STEPS * 1e9,
        "flops_by_part": {"judge": STEPS * 1e9},
    }
    (stage,) = [stage for stage in told["stages"] if stage["kind"] == "judge"]
    assert stage["training_flops"] == STEPS * 1e9
