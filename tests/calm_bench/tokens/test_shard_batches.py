"""Batches over a window of shards: every sequence once an epoch, from shards that are brought in time and let go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from calm_bench.config import Tokens
from calm_bench.kept_elsewhere import ELSEWHERE, KeptFile, NotThere, keep_elsewhere
from calm_bench.tokens import DamagedShard, ShardBatches, TokensError, TokensReport, TokenStream
from calm_bench.tokens.shard_batches import AHEAD
from calm_bench.tokens.shard_cache import ShardCache
from calm_bench.tokens.shard_files import ShardFiles

Write = Callable[[list[str], Tokens], tuple[Path, TokensReport]]
SHARD, LENGTH = 100, 16


@pytest.fixture
def folder(write: Write) -> Path:
    """Ten shards of 100 tokens and one of 50, in which no two sequences are equal."""
    return write(["".join(f"{number:04d}" for number in range(270))[:1049]], Tokens(shard_tokens=SHARD))[0]


@pytest.fixture
def far_folder(folder: Path, tmp_path: Path) -> Path:
    """The same tokens, whose shards are kept at an address."""
    far = tmp_path / "far"
    folder.rename(far)
    near = tmp_path / "near"
    near.mkdir()
    (near / "manifest.json").write_text((far / "manifest.json").read_text())
    shards = sorted(path.relative_to(far).as_posix() for path in far.glob("train/shard-*.arrow"))
    keep_elsewhere(near, {name: KeptFile(f"file://{far / name}") for name in shards})
    return near


def batches_of(folder: Path, window: int = 3, batch_size: int = 4, seed: int = 0) -> ShardBatches:
    return ShardBatches(ShardFiles(folder, "train"), batch_size, LENGTH, seed, window)


def starts_of(stream: TokenStream, rows: torch.Tensor) -> list[int]:
    places = {tuple(stream[start : start + LENGTH].tolist()): start for start in range(len(stream) - LENGTH + 1)}
    return [places[tuple(row)] for row in rows.tolist()]


@pytest.mark.parametrize("window", [1, 3, 50])
def test_an_epoch_serves_every_sequence_once(folder: Path, window: int) -> None:
    stream = TokenStream.open(folder, "train")
    batches = batches_of(folder, window, batch_size=1)
    epochs: dict[int, list[int]] = {}
    while batches.state_dict()["epoch"] < 4:
        row = batches.take()
        epochs.setdefault(batches.state_dict()["epoch"], []).extend(starts_of(stream, row))
    batches.close()
    offsets = set()
    for epoch in range(4):
        shards: dict[int, list[int]] = {}
        for start in epochs[epoch]:
            shards.setdefault(start // SHARD, []).append(start % SHARD)
        assert set(shards) == set(range(11))
        for shard, starts in shards.items():
            tokens, offset = (SHARD if shard < 10 else 50), min(starts)
            assert offset < LENGTH
            assert sorted(starts) == list(range(offset, tokens - LENGTH + 1, LENGTH))
            offsets.add(offset)
        assert epochs[epoch] != sorted(epochs[epoch])
    assert epochs[0] != epochs[1]
    assert len(offsets) > 5


def test_a_slot_mixes_the_shards_of_its_window(folder: Path) -> None:
    stream = TokenStream.open(folder, "train")
    batches = batches_of(folder, window=4, batch_size=1)
    slots: dict[int, set[int]] = {}
    while not batches.state_dict()["epoch"]:
        [start] = starts_of(stream, batches.take())
        slots.setdefault(batches.state_dict()["slot"], set()).add(start // SHARD)
    batches.close()
    # Training begins with a single shard.
    assert len(slots[0]) == 1
    assert max(len(shards) for shards in slots.values()) == 4


def test_only_the_window_and_what_comes_next_is_held(far_folder: Path) -> None:
    batches = batches_of(far_folder)
    for _ in range(120):
        batches.take()
        assert len(list(far_folder.glob("train/*"))) <= 3 + AHEAD + 1
    assert batches.state_dict()["epoch"] > 1
    assert 3 <= batches.cache.most_held <= 3 + AHEAD
    batches.close()
    assert list(far_folder.glob("train/*")) == []


def test_where_shards_are_kept_changes_nothing(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    near = list(islice(batches_of(folder), 60))
    far = list(islice(batches_of(request.getfixturevalue("far_folder")), 60))
    assert all(torch.equal(*pair) for pair in zip(near, far, strict=True))
    # What lies in its own folder is nobody's to remove.
    assert len(list((tmp_path / "far" / "train").glob("shard-*"))) == 11


@pytest.mark.parametrize("after", [0, 1, 7, 23, 40])
def test_batches_go_on_where_they_stopped(folder: Path, after: int) -> None:
    expected = list(islice(batches_of(folder), 60))
    before = batches_of(folder)
    for _ in range(after):
        before.take()
    resumed = batches_of(folder)
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    found = list(islice(resumed, 60 - after))
    assert all(torch.equal(*pair) for pair in zip(found, expected[after:], strict=True))


def test_some_rows_are_those_of_the_whole_batch(folder: Path) -> None:
    whole, some = batches_of(folder, batch_size=5), batches_of(folder, batch_size=5)
    for _ in range(40):
        batch = whole.take()
        assert torch.equal(some.take(torch.tensor([3, 1])), batch[[3, 1]])
    assert whole.state_dict() == some.state_dict()


def test_seeds_differ_and_the_order_is_no_matter_of_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = torch.stack(list(islice(batches_of(folder), 30)))
    assert not torch.equal(first, torch.stack(list(islice(batches_of(folder, seed=1), 30))))
    bring = ShardFiles.bring

    def slow(self: ShardFiles, shard: int) -> object:
        time.sleep(0.01 * (shard % 3))
        return bring(self, shard)

    monkeypatch.setattr(ShardFiles, "bring", slow)
    late = batches_of(folder)
    assert torch.equal(first, torch.stack(list(islice(late, 30))))
    assert late.cache.waited_s > 0


def test_a_position_of_other_batches_is_refused(folder: Path) -> None:
    state = batches_of(folder).state_dict()
    for other in (batches_of(folder, window=2), batches_of(folder, seed=1)):
        with pytest.raises(TokensError, match="the saved data position has"):
            other.load_state_dict(state)


def test_sequences_longer_than_a_shard_are_refused(folder: Path) -> None:
    with pytest.raises(TokensError, match=r"raise tokens\.shard_tokens"):
        ShardBatches(ShardFiles(folder, "train"), 1, SHARD + 1, 0, 2)


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_a_shard_that_does_not_come_is_named(far_folder: Path, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "far" / "train" / "shard-00004.arrow"
    content = bytearray(path.read_bytes())
    path.unlink()
    if fault == "damaged":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    expected = DamagedShard if fault == "damaged" else NotThere
    with pytest.raises(expected, match=r"shard-00004\.arrow"):
        list(islice(batches_of(far_folder), 60))


@pytest.mark.parametrize("fault", ["cut short", "let go of"])
def test_a_shard_that_came_damaged_is_fetched_again(
    far_folder: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a transfer that ends early, and by another worker that removes what both fetch."""
    files = ShardFiles(far_folder, "train")
    faults = iter([fault, ""])
    replace = Path.replace

    def faulty(self: Path, target: Path) -> Path:
        moved = replace(self, target)
        match next(faults):
            case "cut short":
                moved.write_bytes(moved.read_bytes()[:-1])
            case "let go of":
                ShardFiles(far_folder, "train").forget(4)
        return moved

    monkeypatch.setattr(Path, "replace", faulty)
    found = files.bring(4)
    assert found.tolist() == ShardFiles(tmp_path / "far", "train").bring(4).tolist()
    assert list(faults) == []


@pytest.mark.parametrize("content", ["{", '{"format": 1, "files": {}}', '{"format": 2, "files": {"a": "b"}}', "[]"])
def test_a_list_of_places_that_cannot_be_read_is_named(far_folder: Path, content: str) -> None:
    (far_folder / ELSEWHERE).write_text(content)
    with pytest.raises(NotThere, match=ELSEWHERE):
        ShardFiles(far_folder, "train")


def test_the_cache_brings_in_order_and_forgets() -> None:
    brought: list[int] = []
    forgotten: list[int] = []
    may_go_on = threading.Event()

    def bring(shard: int) -> npt.NDArray[np.int64]:
        brought.append(shard)
        assert may_go_on.wait(300)
        return np.array([shard])

    cache = ShardCache(bring, forgotten.append)
    cache.want([3, 1])
    while not brought:
        time.sleep(0.001)
    # Nobody wants it any more by the time it is here.
    cache.want([1, 2])
    may_go_on.set()
    assert cache.get(2)[0] == 2
    assert brought == [3, 1, 2]
    assert forgotten == [3]
    with pytest.raises(KeyError):
        cache.get(3)
    cache.close()
    assert sorted(forgotten) == [1, 2, 3]
