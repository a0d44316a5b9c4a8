"""What was measured is kept for this machine alone, safely, and used for models like those that were measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calm_bench.config import Experiment
from calm_bench.family_registry import FAMILIES
from pipelines.planning.calibration import Calibration, Measured, cache_file, load_calibration, save_calibration
from pipelines.planning.machines import machine_named
from pipelines.planning.measuring import measure, worth_measuring
from pipelines.planning.stage_costs import Speeds
from pipelines.study.config import Execution
from pipelines.study.kinds.autoencoder_workload import AutoencoderWorkload
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload
from pipelines.study.workload import Speed, Workload
from tests.hostile_folder import litter

HERE = machine_named("local", Execution(backend="local"))
TINY = {
    "autoencoder": {"latent_size": 8, "hidden_size": 16, "intermediate_size": 32, "training": {"num_steps": 5}},
    "model": {"chunk_size": 2, "hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_attention_heads": 2},
    "evaluation": {"context_length": 64, "first_position": 16},
    "samples": {"num_tokens": 16, "candidates": 20},
}


def workload(**model: object) -> Workload:
    experiment = Experiment.model_validate({**TINY, "model": {**TINY["model"], **model}})
    return LanguageModelWorkload(experiment, 257)


def measured(which: Workload, step: float) -> Calibration:
    speed = Speed(step, step / 1e4, window=step / 10, texts=step)
    return Calibration({which.identity: Measured.of(which, speed)}, import_s=3.0, alone=0.8)


def test_a_speed_belongs_to_sizes_and_not_to_lengths() -> None:
    same = workload(training={"num_steps": 7, "learning_rate": 0.1, "warmup_steps": 1})
    assert same.identity == workload().identity
    others = [
        workload(num_layers=2),
        workload(kind="token"),
        workload(chunk_size=4),
        workload(training={"num_steps": 7, "batch_size": 4}),
    ]
    assert len({workload().identity, *(other.identity for other in others)}) == 5


def test_measurements_are_kept_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calibration.json"
    assert load_calibration(HERE, path) == Calibration()
    save_calibration(HERE, measured(workload(), 0.5), path)
    save_calibration(HERE, measured(workload(num_layers=2), 0.9), path)
    found = load_calibration(HERE, path)
    assert found.models[workload().identity].speed.step == 0.5
    assert found.models[workload(num_layers=2).identity].speed.step == 0.9
    assert (found.import_s, found.alone) == (3.0, 0.8)
    assert found.measured


def test_another_number_of_stages_at_once_or_machine_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(HERE, measured(workload(), 0.5), path)
    assert not load_calibration(replace(HERE, parallelism=7), path).models
    assert not load_calibration(machine_named("h100", Execution()), path).models
    assert load_calibration(HERE, path).models


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"step": 0.5', '"step": "fast"'),
        lambda text: text.replace('"import_s": 3.0', '"import_s": null'),
        lambda text: text.replace('"version": 1', '"version": 99'),
    ],
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(HERE, measured(workload(), 0.5), path)
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    assert load_calibration(HERE, path) == Calibration()
    save_calibration(HERE, measured(workload(), 0.7), path)
    assert load_calibration(HERE, path).models[workload().identity].speed.step == 0.7


def test_the_file_lies_in_the_folder_for_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_file() == tmp_path / "calm-bench" / "calibration.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "../elsewhere")
    assert cache_file() == Path.home() / ".cache" / "calm-bench" / "calibration.json"


def test_a_model_that_was_not_measured_goes_by_the_nearest_one() -> None:
    # Large enough for calls from Python not to matter.
    small, large = workload(hidden_size=512, intermediate_size=1024), workload(hidden_size=1024, intermediate_size=2048)
    speeds = Speeds(HERE, measured(small, 10.0))
    assert speeds.is_measured(small)
    assert speeds.of(small).step == 10.0
    assert speeds.of(large).step == pytest.approx(10.0 * large.flops_per_step / small.flops_per_step, rel=0.01)
    unmeasured = Speeds(HERE, Calibration()).of(large)
    assert unmeasured.step == pytest.approx(large.flops_per_step / 3.3e10, rel=0.01)


def test_what_would_take_long_is_not_measured() -> None:
    assert worth_measuring([workload(), workload()], HERE) == [workload()]
    assert worth_measuring([workload(hidden_size=4096, intermediate_size=16384, num_layers=32)], HERE) == []


@pytest.mark.slow
def test_a_measurement_runs_the_real_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies where it is started: its processes begin in the same folder."""
    monkeypatch.chdir(litter(tmp_path / "here"))
    experiment = Experiment.model_validate(TINY)
    families = [name for name in FAMILIES.built_in if name != "custom"]
    workloads = [AutoencoderWorkload(experiment, 257), *(workload(kind=name) for name in families)]
    found = measure(workloads, HERE)
    assert found.models.keys() == {each.identity for each in workloads}
    for each in workloads:
        speed = found.models[each.identity].speed
        assert 0 < speed.step < 10
        assert (speed.window > 0, speed.texts > 0) == (each.kind == "language_model",) * 2
        assert (speed.reconstruction_token > 0) == (each.kind == "autoencoder")
    assert found.import_s > 0
    assert json.dumps(found.import_s)
