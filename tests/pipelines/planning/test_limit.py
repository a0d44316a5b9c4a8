"""``--budget``: what is too dear is not started, and the refusal says what most of it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.planning.calibration import Calibration
from pipelines.planning.estimate import estimate
from pipelines.planning.limit import Limit, OverBudget, check_limit, parse_limit
from pipelines.planning.machines import machine_named
from pipelines.planning.planner import plan_study
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("2h", Limit("time", 7200.0)),
        ("90 min", Limit("time", 5400.0)),
        ("1.5d", Limit("time", 129600.0)),
        ("1e15", Limit("flops", 1e15)),
        ("2E+12 FLOPs", Limit("flops", 2e12)),
        ("500gpu-hours", Limit("gpu-hours", 500.0)),
        ("0.5 GPUh", Limit("gpu-hours", 0.5)),
    ],
)
def test_amounts(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["", "much", "0h", "-3h", "2 weeks", "1e999", "1..2", "5 euro"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--budget"):
        parse_limit(text)


def test_a_refusal_names_the_dearest(tmp_path: Path) -> None:
    study, store = resolve_study("paper-k-ablation"), Store(tmp_path)
    plan = plan_study(study, store)
    expected = estimate(plan, store, machine_named("h100x8", study.execution), Calibration())
    check_limit(parse_limit("1e23"), plan, expected)
    check_limit(parse_limit("1e5gpu-hours"), plan, expected)
    for text in ("1e20", "100gpuh", "1h"):
        with pytest.raises(OverBudget, match=r"Largest trials: CALM-L K=1 .*\n.*Largest stages: language model K=1"):
            check_limit(parse_limit(text), plan, expected)


def test_gpu_hours_need_gpus(tmp_path: Path) -> None:
    study, store = resolve_study("smoke"), Store(tmp_path)
    plan = plan_study(study, store)
    with pytest.raises(ConfigurationError, match="--machine h100x8"):
        check_limit(
            parse_limit("1gpuh"), plan, estimate(plan, store, machine_named("local", study.execution), Calibration())
        )


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_command_refuses_and_writes_nothing(tmp_path: Path, command: str) -> None:
    done = CliRunner().invoke(app, [command, "smoke", "--store", str(tmp_path / "store"), "--budget", "1e9"])
    assert isinstance(done.exception, OverBudget)
    assert "smoke would cost 8.67e10 FLOPs, more than the budget of 1.00e9 FLOPs" in str(done.exception)
    assert not (tmp_path / "store" / "stages").exists()


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_refusal_says_that_a_vocabulary_is_yet_to_be_found(tmp_path: Path, command: str) -> None:
    words = ["tokens.tokenizer=bpe", "tokens.vocab_size=8192", "--store", str(tmp_path), "--budget", "1e9"]
    done = CliRunner().invoke(app, [command, "smoke", *words])
    assert isinstance(done.exception, OverBudget)
    said = "  How many entries a BPE finds is known when it is trained: prices are for at most 8,192."
    assert str(done.exception).splitlines()[-1] == said


def test_json_of_the_command_holds_the_estimates(tmp_path: Path) -> None:
    machines = ["--machine", "local", "--machine", "a100x4"]
    done = CliRunner().invoke(app, ["plan", "smoke", "--store", str(tmp_path), "--json", *machines])
    assert done.exit_code == 0, done.output
    here, there = json.loads(done.stdout)["estimates"]
    assert here["machine"]["name"] == "local"
    assert here["gpu_hours"] is None
    assert there["machine"]["parallelism"] == 4
    assert there["gpu_hours"] > 0
    assert len(here["stages"]) == 9
    assert min(here["seconds"], there["seconds"]) > 0
