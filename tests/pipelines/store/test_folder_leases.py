from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from calm_bench.kept_folders import keeping
from pipelines.store.folder_leases import leases_in

HOLD = """
import sys
from pathlib import Path
from pipelines.store.folder_leases import leases_in
lease = leases_in(Path(sys.argv[1])).acquire("thing")
print("held" if lease else "taken", flush=True)
sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = leases_in(tmp_path), leases_in(tmp_path)
    lease = first.acquire("thing")
    assert lease is not None
    assert second.acquire("thing") is None
    assert second.holder("thing") is not None
    other = second.acquire("other thing")
    assert other is not None
    other.release()
    lease.release()
    assert second.holder("thing") is None
    with second.acquire("thing") or pytest.fail("a released lease is free"):
        assert first.acquire("thing") is None


def test_many_threads_get_one_lease(tmp_path: Path) -> None:
    leases, taken = leases_in(tmp_path), []
    barrier = threading.Barrier(8)

    def grab() -> None:
        barrier.wait()
        taken.append(leases.acquire("thing"))

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [lease for lease in taken if lease is not None]
    assert len(held) == 1
    held[0].release()


def test_a_killed_process_does_not_keep_its_lease(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    leases = leases_in(tmp_path)
    assert leases.acquire("thing") is None
    holder.kill()
    holder.wait()
    lease = leases.acquire("thing")
    assert lease is not None
    lease.release()


def _pretend_to_be_elsewhere(path: Path, seconds_old: float) -> None:
    """Make the lease look as if a process on another host had touched it last ``seconds_old`` ago."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere", "token": "theirs"}))
    then = path.stat().st_mtime - seconds_old
    os.utime(path, (then, then))


def test_the_lease_of_another_host_expires(tmp_path: Path) -> None:
    leases = leases_in(tmp_path, expiry_s=3600, heartbeat_s=1200)
    lease = leases.acquire("thing")
    assert lease is not None
    _pretend_to_be_elsewhere(tmp_path / "thing.json", seconds_old=3000)
    assert leases.acquire("thing") is None
    _pretend_to_be_elsewhere(tmp_path / "thing.json", seconds_old=4200)
    taken_over = leases.acquire("thing")
    assert taken_over is not None
    lease.release()
    assert leases.holder("thing") is not None, "releasing a lost lease must leave its new holder alone"
    taken_over.release()


def test_a_holder_notices_that_it_lost_its_lease(tmp_path: Path) -> None:
    leases = leases_in(tmp_path, expiry_s=60, heartbeat_s=0.01)
    lease = leases.acquire("thing")
    assert lease is not None
    assert not lease.lost
    _pretend_to_be_elsewhere(tmp_path / "thing.json", seconds_old=0)
    lease._thread.join(timeout=60)
    assert lease.lost
    lease.release()
    assert (tmp_path / "thing.json").exists()


def test_a_heartbeat_slower_than_the_expiry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot keep a lease"):
        leases_in(tmp_path, expiry_s=10, heartbeat_s=5)


def test_what_is_held_is_listed_at_once(tmp_path: Path) -> None:
    leases = leases_in(tmp_path)
    assert leases.held() == {}
    first, second = leases.acquire("first"), leases.acquire("second")
    assert first is not None
    assert second is not None
    assert {name: held.holder.pid for name, held in leases.held().items()} == dict.fromkeys(
        ("first", "second"), os.getpid()
    )
    _pretend_to_be_elsewhere(tmp_path / "second.json", seconds_old=3600)
    assert list(leases.held()) == ["first"]
    first.release()
    second.release()
    assert leases.held() == {}


def test_leases_of_a_store_that_may_only_be_read_are_told(tmp_path: Path) -> None:
    """A killed driver leaves its lease, and who lists or checks such a store takes none."""
    leases = leases_in(tmp_path)
    lease = leases.acquire("mine")
    assert lease is not None
    dead = json.loads((tmp_path / "mine.json").read_text()) | {"host": "elsewhere", "token": "theirs"}
    (tmp_path / "dead.json").write_text(json.dumps(dead))
    os.utime(tmp_path / "dead.json", (0, 0))
    # As on a read-only file system: not even root may open it for writing.
    (tmp_path / ".guard").unlink()
    (tmp_path / ".guard").mkdir()
    assert leases.holder("mine") is not None
    assert list(leases.held()) == ["mine"]
    assert [found.name for found in leases.sweep(delete=False) if "dead" in found.name] == [
        f"{tmp_path.name}/dead.json"
    ]
    with pytest.raises(IsADirectoryError):
        leases.acquire("another")
    (tmp_path / ".guard").rmdir()
    lease.release()


@pytest.mark.parametrize("another", [False, True])
def test_what_a_moved_store_took_along_is_given_back_there(another: bool, tmp_path: Path) -> None:
    """By a process that lives on, as a notebook's: its lease would be in the way until it expires."""
    here, there = tmp_path / "store", tmp_path / "moved"
    (here / "studies").mkdir(parents=True)
    with keeping(here, "studies"):
        lease, other = leases_in(here / "leases").acquire("thing"), leases_in(here / "leases").acquire("other")
        assert lease is not None
        assert other is not None
        here.rename(there)
        if another:
            here.mkdir()
        assert set(leases_in(there / "leases").held()) == {"thing", "other"}
        lease.release()
        assert set(leases_in(there / "leases").held()) == {"other"}
        (there / "leases" / "other.json").write_text((there / "leases" / "other.json").read_text().replace("pid", "x"))
        other.release()
        assert (there / "leases" / "other.json").exists(), "somebody else's by now"
    assert not here.exists() or not list(here.iterdir())
