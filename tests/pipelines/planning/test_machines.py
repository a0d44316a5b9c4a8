"""Machines by name: their rates, how many stages they take at once, and what to say of a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.devices import available_cpus
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.planning.machines import GPUS, local_gpus, machine_named
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Execution
from pipelines.study.kinds.autoencoder_workload import AutoencoderWorkload
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload


def test_gpus_by_name_and_number() -> None:
    one = machine_named("h100", Execution())
    assert (one.label, one.device, one.parallelism) == ("H100", "cuda", 1)
    assert one.flops_per_second == pytest.approx(0.25 * 9.89e14)
    eight = machine_named(" H100x8 ", Execution(gpus_per_stage=2), mfu=0.5)
    assert (eight.label, eight.parallelism) == ("8 x H100", 4)
    # A training here uses one GPU, whatever it reserves.
    assert eight.flops_per_second == pytest.approx(0.5 * 9.89e14)
    assert machine_named("t4x2", Execution(gpus_per_stage=0.5)).parallelism == 4
    assert machine_named("4090x2", Execution(max_parallel=1)).parallelism == 1


def test_utilisation_goes_by_the_kind_of_model_unless_it_is_stated() -> None:
    experiment = resolve_study("paper-k-ablation").experiment()
    token = apply_settings(experiment, {"model.kind": "token"})
    autoencoder, chunks, tokens = (
        AutoencoderWorkload(experiment, 128_256),
        LanguageModelWorkload(experiment, 128_256),
        LanguageModelWorkload(token, 128_256),
    )
    by_kind, stated = machine_named("h100", Execution()), machine_named("h100", Execution(), mfu=0.4)
    rates = [by_kind.rates_of(workload)[0] / 9.89e14 for workload in (autoencoder, tokens, chunks)]
    assert rates == [pytest.approx(0.12), pytest.approx(0.20), pytest.approx(0.25)]
    assert {stated.rates_of(workload)[0] for workload in (autoencoder, tokens, chunks)} == {0.4 * 9.89e14}
    here = machine_named("local", Execution())
    assert len({here.rates_of(workload) for workload in (autoencoder, tokens, chunks)}) == 1


def test_this_machine_runs_what_its_cpus_take() -> None:
    here = machine_named("local", Execution())
    assert here.is_this
    assert here.parallelism == available_cpus()
    assert machine_named("local", Execution(backend="local")).parallelism == 1
    assert machine_named("local", Execution(max_parallel=1)).parallelism == 1


@pytest.mark.parametrize(
    ("name", "mfu", "message"),
    [
        ("h10", None, "did you mean 'h100'"),
        ("abacus", None, "local"),
        ("h100x0", None, "one GPU or more"),
        ("h100", 0.0, "--mfu 0"),
        ("h100", 1.5, "--mfu 1.5"),
    ],
)
def test_what_is_no_machine_is_refused(name: str, mfu: float | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        machine_named(name, Execution(), mfu)


def test_the_drivers_list_of_gpus_is_read_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "Something else")):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    assert local_gpus(tmp_path) == [GPUS["h100"], GPUS["4090"], GPUS["t4"]]
    assert local_gpus(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ("", []),
        ("-1", []),
        ("0,2", ["h100", "a100"]),
        (" 1 , 0", ["4090", "h100"]),
        ("0,-1,2", ["h100"]),
        ("2,7", ["a100"]),
        ("GPU-8932f937,GPU-1dc0a2b4", ["h100", "4090"]),
    ],
)
def test_gpus_that_this_process_may_not_see_are_left_out(
    names: str, seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB")):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert local_gpus(tmp_path) == [GPUS[name] for name in seen]
