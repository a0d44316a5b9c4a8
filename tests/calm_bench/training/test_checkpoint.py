"""What is kept of a training, and what is read of it again."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from calm_bench.atomic import write_with
from calm_bench.training import checkpoint_files
from calm_bench.training.checkpoint import Checkpoints, Counters
from calm_bench.training.checkpoint_files import Part, checkpoints_in, divided_rows, files_of, opened, write_part


def _model(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    return model, optimizer


def _save(checkpoints: Checkpoints, step: int, loss: float | None = None) -> nn.Module:
    model, optimizer = _model(float(step))
    checkpoints.save(model, optimizer, Counters(step, 1.0, 0, {}, {}, loss))
    checkpoints.join()
    return model


def _steps(folder: Path) -> list[int]:
    """Of the checkpoints that are there, each with its digest and nothing else."""
    found = sorted(folder.glob("step-*.safetensors"))
    assert sorted(folder.iterdir()) == sorted([*found, *(path.with_suffix(".sha256") for path in found)])
    return [int(path.stem.removeprefix("step-")) for path in found]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.best() is None
    kept = []
    for step, loss in enumerate([3.0, 1.0, None, 2.0, 1.5, 0.5, 1.0, 0.5], start=1):
        _save(checkpoints, step, loss)
        kept.append(_steps(tmp_path))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7], [7, 8]]
    best = checkpoints.best()
    assert best is not None
    assert best.paths == (tmp_path / "step-000000008.safetensors",), "the newer of equals"


@pytest.mark.parametrize("count", [1, 3])
def test_how_many_are_kept_can_be_said(tmp_path: Path, count: int) -> None:
    checkpoints = Checkpoints(tmp_path, count)
    for step in range(1, 6):
        _save(checkpoints, step)
    assert _steps(tmp_path) == list(range(6 - count, 6))
    assert Checkpoints(tmp_path).keep == 2
    with pytest.raises(ValueError, match="at least one checkpoint"):
        Checkpoints(tmp_path, 0)


def test_the_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written are the weights of its step, whatever the next step does to them."""
    begun, may_write = threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> None:
        begun.set()
        assert may_write.wait(30)
        write_with(*args, **kwargs)

    monkeypatch.setattr(checkpoint_files, "write_with", slow)
    checkpoints = Checkpoints(tmp_path)
    model, optimizer = _model(1.0)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoints.save(model, optimizer, Counters(1, 1.0, 0, {}, {}))
    assert begun.wait(30)
    assert not list(tmp_path.iterdir()), "save returned before anything was written"
    optimizer.step()
    may_write.set()
    checkpoints.join()
    other, other_optimizer = _model(0.0)
    assert checkpoints.restore(other, other_optimizer) is not None
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(model.weight, other.weight)  # type: ignore[arg-type]


def test_one_that_cannot_be_written_is_an_error_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    _save(checkpoints, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_with", full)
        checkpoints.save(*_model(2.0), Counters(2, 1.0, 0, {}, {}))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(*_model(3.0), Counters(3, 1.0, 0, {}, {}))
    _save(checkpoints, 4)
    assert _steps(tmp_path) == [1, 4]


@pytest.mark.parametrize("damage", ["cut", "flipped", "still being written"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    before = _save(checkpoints, 1, 1.0)
    _save(checkpoints, 2, 0.5)
    path = tmp_path / "step-000000002.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:50])
    elif damage == "flipped":
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.with_suffix(".sha256").unlink()
    model, optimizer = _model(0.0)
    # To have been killed while it saved is nothing to warn of; pytest would make an error of a warning.
    warned = nullcontext() if "written" in damage else pytest.warns(UserWarning, match="step-000000002.* is damaged")
    with warned:
        counters = checkpoints.restore(model, optimizer)
    assert counters is not None
    assert counters.step == 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    _save(checkpoints, 3, 2.0)
    assert checkpoints.best() is not None


def test_what_was_being_written_when_its_process_was_killed_is_removed(tmp_path: Path) -> None:
    """A file of a checkpoint's size under a name of its own, which nobody ever asks for."""
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(*_model(0.0)) is None, "there is no folder yet"
    _save(checkpoints, 1)
    process = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".")]) == 1
    counters = checkpoints.restore(*_model(0.0))
    assert counters is not None
    assert counters.step == 1
    assert _steps(tmp_path) == [1]


def _killed_while_writing(folder: Path) -> None:
    write_with(folder / "step-000000002.safetensors", lambda path: os.kill(os.getpid(), signal.SIGKILL))


def test_older_ones_without_digest_are_warned_of(tmp_path: Path) -> None:
    """A process that ends leaves one at most: the rest were lost otherwise."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        _save(checkpoints, step)
    for digest in tmp_path.glob("*.sha256"):
        digest.unlink()
    with pytest.warns(UserWarning, match=r"step-000000001.safetensors is damaged") as warned:
        assert checkpoints.restore(*_model(0.0)) is None
    assert len(warned) == 1


def _write_parts(folder: Path, step: int, count: int, saves: list[int], missing: int | None = None) -> None:
    """A tensor of five rows, each of which is its number, and a scalar that the first worker writes."""
    whole = torch.arange(5.0).repeat(2, 1).T.contiguous()
    for index, save in enumerate(saves):
        if index == missing:
            continue
        start, stop = divided_rows(5, index, count)
        tensors = {"rows": whole[start:stop].clone()} if start < stop else {}
        tensors |= {"count": torch.tensor(3.0)} if index == 0 else {}
        write_part(folder, step, Part(index, count, save), tensors, {"step": step}, {"rows": [5, 2]})


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_checkpoint_in_parts_is_read_by_rows(tmp_path: Path, count: int) -> None:
    _write_parts(tmp_path, 4, count, [1] * count)
    [files] = checkpoints_in(tmp_path)
    assert files == files_of(tmp_path, 4, count)
    assert files.condition() == "intact"
    with opened(files) as stored:
        assert stored.counters == {"step": 4}
        assert sorted(stored.names()) == ["count", "rows"]
        assert stored.shape("rows") == (5, 2)
        assert stored.shape("count") == ()
        assert stored.whole("rows")[:, 1].tolist() == [0, 1, 2, 3, 4]
        assert stored.whole("count") == 3
        for start in range(6):
            for stop in range(start, 6):
                assert stored.rows("rows", start, stop)[:, 0].tolist() == list(range(start, stop))


@pytest.mark.parametrize("what", ["a part is missing", "a digest is missing", "a part of another call", "damaged"])
def test_parts_that_make_no_whole_are_passed_over(tmp_path: Path, what: str) -> None:
    _write_parts(tmp_path, 1, 2, [1, 1])
    _write_parts(tmp_path, 2, 2, [1, 2 if "call" in what else 1], 1 if "part is" in what else None)
    if "digest" in what:
        next(tmp_path.glob("step-000000002.00001*.sha256")).unlink()
    if what == "damaged":
        path = next(tmp_path.glob("step-000000002.00001*.safetensors"))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    older, newer = checkpoints_in(tmp_path)
    assert older.condition() == "intact"
    assert newer.condition() == ("damaged" if what == "damaged" else "unfinished")
    assert newer.is_finished == (what == "damaged")


def test_an_unfinished_checkpoint_takes_no_place_of_those_that_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    _save(checkpoints, 1)
    _write_parts(tmp_path, 2, 2, [1, 1], missing=1)
    checkpoints._drop_old()
    assert [files.step for files in checkpoints_in(tmp_path)] == [1, 2]
    _save(checkpoints, 3)
    assert _steps(tmp_path) == [3]
