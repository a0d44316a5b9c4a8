"""Who holds a lease, told by its process: on a machine whose clock is set, or that hides the processes of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from pipelines.store.holder import this_process
from pipelines.store.object_store import ObjectStore
from pipelines.store.study_copies import StudyCopies


@pytest.mark.parametrize("seconds", [-86_400, -3600, 3600])
def test_a_clock_that_is_set_ends_nobody(seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start times since the epoch move with the clock: a driver beside it would take the leases of one that lives."""
    holder = this_process()
    (tmp_path / str(holder.pid)).symlink_to(f"/proc/{holder.pid}")
    told = Path("/proc/stat").read_text()
    (tmp_path / "stat").write_text(re.sub(r"btime (\d+)", lambda found: f"btime {int(found[1]) + seconds}", told))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert not holder.is_gone()


def test_an_ended_process_and_one_of_the_same_number_are_told() -> None:
    holder = this_process()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert replace(holder, pid=child.pid, started=holder.started + 1).is_gone(), "its parent has not heard of it"
    child.wait()
    assert replace(holder, pid=child.pid).is_gone()
    assert replace(holder, started=holder.started - 0.02).is_gone()
    assert not replace(holder, host="elsewhere", pid=child.pid).is_gone()


def test_another_start_of_the_system_is_told() -> None:
    holder = this_process()
    name, space, boot = holder.host.split(" ")
    earlier = replace(holder, host=f"{name} {space} {boot[::-1]}")
    assert not earlier.is_gone(), "as it may be another machine of this name"
    assert earlier.is_of_an_earlier_start()
    for other in (holder.host, f"elsewhere {space} {boot}", f"{name} pid:[1] {boot[::-1]}", "elsewhere"):
        assert not replace(holder, host=other).is_of_an_earlier_start()


def test_a_mark_from_before_the_system_was_started_anew_is_nobodys(tmp_path: Path) -> None:
    copies = StudyCopies(ObjectStore(f"memory://{tmp_path.name}"), tmp_path)
    (tmp_path / "drivers").mkdir()
    with copies.driving("study-a"):
        assert copies.driven() == {"study-a"}
        (mark,) = (tmp_path / "drivers").iterdir()
        name, space, boot = this_process().host.split(" ")
        mark.write_text(json.dumps(json.loads(mark.read_text()) | {"host": f"{name} {space} {boot[::-1]}"}))
        assert copies.driven() == set()


def test_a_process_that_may_not_be_seen_is_not_gone(tmp_path: Path) -> None:
    """As on hosts whose users see their own processes alone (/proc mounted with hidepid)."""
    if os.getuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("needs root, unshare and setpriv (util-linux)")
    check = "import json, sys; from pipelines.store.holder import Holder; "
    check += "print(Holder(**json.loads(sys.argv[1])).is_gone())"
    reads = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
    hidden = (
        f'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 54321 --regid 54321 --clear-groups {reads} "$@"'
    )
    told = json.dumps(asdict(this_process()))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", check, told],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.stdout == "False\n", done.stderr
