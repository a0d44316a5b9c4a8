"""A journal of trials is read again after a kill and after damage, and nothing of a damaged one is thrown away."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from pipelines.search.trial_storage import Journal


def journal_of(path: Path, num_trials: int) -> bytes:
    study = optuna.create_study(study_name="a", storage=Journal(path, "a").open())
    for number in range(num_trials):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        study.tell(trial, float(number))
    return path.read_bytes()


def values(path: Path) -> list[float]:
    study = optuna.load_study(study_name="a", storage=Journal(path, "a").open())
    return [trial.value for trial in study.trials if trial.value is not None]


def test_a_torn_last_line_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "optuna.journal"
    content = journal_of(path, 3)
    path.write_bytes(content + b'{"op_code": 4, "wor')
    assert values(path) == [0, 1, 2]
    assert path.read_bytes() == content
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00", b'{"op_code": 4, "wor', b"[1, 2]"])
def test_a_damaged_line_costs_what_follows_it(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "optuna.journal"
    lines = journal_of(path, 4).splitlines(keepends=True)
    lines[-3] = damage + b"\n"
    path.write_bytes(b"".join(lines))
    broken = path.read_bytes()
    assert values(path) == [0, 1, 2]
    assert (tmp_path / "optuna.journal.damaged-1").read_bytes() == broken
    assert f"damaged in line {len(lines) - 2} of {len(lines)}" in capsys.readouterr().err
    study = optuna.load_study(study_name="a", storage=Journal(path, "a").open())
    study.tell(study.ask(), 7.0)
    assert values(path)[-1] == 7
    path.write_bytes(broken)
    values(path)
    assert (tmp_path / "optuna.journal.damaged-2").exists()
