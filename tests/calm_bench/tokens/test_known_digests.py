"""A file is hashed once on a node, and again as soon as it may be another."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

import pytest

from calm_bench import known_digests
from calm_bench.config import Tokens
from calm_bench.known_digests import known_digest
from calm_bench.tokens import TokensReport, TokenStream
from calm_bench.tokens.manifest import DamagedShard

Write = Callable[[list[str], Tokens], tuple[Path, TokensReport]]


@pytest.fixture(autouse=True)
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Contents that were hashed, on a node of its own where files settle at once."""
    found = []
    digest = known_digests._digest

    def noted(file: BufferedReader) -> str:
        file.seek(0)
        found.append(file.read().decode("latin-1"))
        time.sleep(0.02)
        return digest(file)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(known_digests, "SETTLED_S", -60.0)
    monkeypatch.setattr(known_digests, "_digest", noted)
    return found


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return known_digest(file)


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def test_processes_that_ask_at_once_hash_once(path: Path, hashed: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(digest_of, [path] * 8)) == {sha256("one")}
    assert hashed == ["one"]


def test_another_name_of_the_file_is_known_too(path: Path, hashed: list[str]) -> None:
    digest_of(path)
    path.rename(path.with_name("other"))
    assert digest_of(path.with_name("other")) == sha256("one")


@pytest.mark.parametrize("way", ["written into", "replaced", "longer"])
def test_a_changed_file_is_hashed_again(path: Path, way: str, hashed: list[str]) -> None:
    digest_of(path)
    before = path.stat()
    time.sleep(0.05)
    content = "once" if way == "longer" else "two"
    if way == "replaced":
        path.with_name("new").write_text(content)
        path.with_name("new").rename(path)
    else:
        path.write_text(content)
    # Times of change can be set back, but for the one that the system keeps.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest_of(path) == sha256(content)
    assert hashed == ["one", content]


def test_a_file_that_may_still_change_is_not_remembered(
    path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "SETTLED_S", 60.0)
    assert [digest_of(path), digest_of(path)] == [sha256("one")] * 2
    assert hashed == ["one", "one"]


def test_what_a_killed_process_left_is_not_believed(path: Path, tmp_path: Path, hashed: list[str]) -> None:
    digest_of(path)
    [memo] = tmp_path.glob("temporary/calm-bench-*/digests/*")
    memo.write_bytes(memo.read_bytes()[:-1])
    assert digest_of(path) == sha256("one")
    assert len(hashed) == 2


def test_without_a_folder_of_its_own_each_hashes_for_itself(
    path: Path, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert [digest_of(path), digest_of(path)] == [sha256("one")] * 2
    assert hashed == ["one", "one"]


def test_tokens_are_hashed_once_and_damage_is_found_all_the_same(write: Write, hashed: list[str]) -> None:
    folder, _ = write(["some text", "more text"], Tokens())
    hashed.clear()
    for _ in range(2):
        TokenStream.open(folder, "train")
    assert len(hashed) == 2, "a shard, and where documents end"
    path = folder / "train" / "shard-00000.arrow"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    time.sleep(0.05)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedShard):
        TokenStream.open(folder, "train")
