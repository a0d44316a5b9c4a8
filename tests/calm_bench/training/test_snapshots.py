"""Models kept along a training: where, how many, and the same after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.training.snapshots import Snapshots, kept_snapshots


def write_name(folder: Path) -> None:
    (folder / "model").write_text(folder.name)


@pytest.mark.parametrize(
    ("total", "count", "steps"),
    [(12, 3, (4, 8, 12)), (10, 4, (3, 5, 8, 10)), (3, 5, (1, 2, 3)), (7, 1, (7,))],
)
def test_steps_are_even_and_end_with_the_last(tmp_path: Path, total: int, count: int, steps: tuple[int, ...]) -> None:
    snapshots = Snapshots(tmp_path, count, write_name)
    assert snapshots.steps(total) == steps
    for step in range(1, total + 1):
        snapshots.note(step, total)
    assert tuple(kept_snapshots(tmp_path)) == steps


def test_none_are_kept_unless_asked_for(tmp_path: Path) -> None:
    Snapshots(tmp_path, 0, write_name).note(1, 1)
    assert kept_snapshots(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_model_cut_off_while_it_was_written_is_none(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        Snapshots(tmp_path, 1, fail).note(1, 1)
    assert kept_snapshots(tmp_path) == {}
    Snapshots(tmp_path, 1, write_name).note(1, 1)
    assert list(kept_snapshots(tmp_path)) == [1]
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
