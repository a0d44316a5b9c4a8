"""Exact resumption: whatever ends a training, and wherever, it goes on as if nothing had happened."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from calm_bench.family_registry import FAMILIES
from calm_bench.heads import HEADS
from calm_bench.training import loop
from tests.calm_bench.training.tiny_trainings import (
    FAMILIES_TRAINED,
    HEADS_TRAINED,
    STEPS,
    TRAINED,
    Trainings,
    cut,
    never,
)

CUTS = [
    ("killed", 3),  # before the first checkpoint
    ("stopped", 4),  # at one
    ("killed", 5),  # after one, with a line of metrics that it does not know
    ("stopped", 7),  # in the middle of a window of logging, after a validation
    ("killed", 7),  # at once
    ("killed", 11),
    ("stopped", 11),  # before the last step
    ("killed", STEPS),  # after it, when the model should have been saved
]


def test_every_head_and_family_that_ships_is_here() -> None:
    assert {head["kind"] for head in HEADS_TRAINED.values()} == set(HEADS.names())
    assert {*FAMILIES_TRAINED, "calm", "custom"} == set(FAMILIES.built_in)


@pytest.mark.parametrize("what", TRAINED)
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation": 2}], ids=["whole batches", "two micro-batches"])
def test_a_training_that_ends_eight_times_on_the_way_gives_the_same_bits(
    what: str, settings: dict[str, Any], trainings: Trainings, tmp_path: Path
) -> None:
    for how, step in CUTS:
        cut(trainings.of(what, **settings), tmp_path, how, step)
    trainings.assert_ends_like_the_undisturbed(tmp_path, what, **settings)


@pytest.mark.parametrize("what", ["autoencoder", "token", "energy"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_in_half_precision_too(what: str, trainings: Trainings, tmp_path: Path) -> None:
    """What is averaged between two lines of the log must keep its roundings over a checkpoint."""
    settings = {"precision": "bf16", "gradient_accumulation": 2}
    cut(trainings.of(what, **settings), tmp_path, "stopped", 7)
    trainings.assert_ends_like_the_undisturbed(tmp_path, what, **settings)


def test_one_that_goes_on_in_another_arithmetic_says_both(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(trainings.of("token"), tmp_path, "stopped", 5)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_arithmetic", lambda *settings: "bf16 on cuda")
        cut(trainings.of("token"), tmp_path, "stopped", 6)
        cut(trainings.of("token"), tmp_path, "stopped", 7)
    result = trainings.of("token")(tmp_path, never)
    assert result["arithmetic"] == "fp32 on cpu, then bf16 on cuda, then fp32 on cpu"


@pytest.mark.parametrize("step", [1, 2, 6, 8, 10])
def test_wherever_it_is_stopped(step: int, trainings: Trainings, tmp_path: Path) -> None:
    cut(trainings.of("token"), tmp_path, "stopped", step)
    trainings.assert_ends_like_the_undisturbed(tmp_path, "token")


@pytest.mark.parametrize("damage", ["cut short", "bit flipped", "digest cut short", "digest changed", "no digest"])
def test_a_damaged_checkpoint_costs_the_work_since_the_one_before(
    damage: str, trainings: Trainings, tmp_path: Path
) -> None:
    cut(trainings.of("energy"), tmp_path, "killed", 11)
    newest = tmp_path / "checkpoints" / f"step-{8:09d}.safetensors"
    file = newest.with_suffix(".sha256") if "digest" in damage else newest
    content = bytearray(file.read_bytes())
    if damage == "no digest":
        file.unlink()
    elif "short" in damage:
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    # Without a digest it was being written when the process ended, which is nothing to warn of.
    with nullcontext() if damage == "no digest" else pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        trainings.assert_ends_like_the_undisturbed(tmp_path, "energy")


def test_a_slow_training_saves_by_the_clock_too(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.of("energy")
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "SAVING_SHARE", 0.0)
    cut(trainings.of("energy"), tmp_path, "killed", 11)
    saved = {path.name for path in (tmp_path / "checkpoints").glob("step-*.safetensors")}
    assert f"step-{10:09d}.safetensors" in saved, "the last line of the log, not the last multiple of checkpoint_every"
    trainings.assert_ends_like_the_undisturbed(tmp_path, "energy")
