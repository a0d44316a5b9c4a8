from __future__ import annotations

import math
from pathlib import Path

import pytest

from calm_bench import devices
from calm_bench.cgroups import cpu_quota, memory_left, memory_limit, process_limit

V2 = "30 23 0:26 / {folder} rw,relatime - cgroup2 cgroup2 rw\n"
V1 = "33 23 0:30 {root} {folder}/{name} rw,relatime shared:9 - cgroup cgroup rw,{controllers}\n"
UNLIMITED = "9223372036854771712"


def write(folder: Path, **contents: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def process(tmp_path: Path, cgroup: str, mountinfo: str) -> Path:
    write(tmp_path / "proc", cgroup=cgroup, mountinfo=mountinfo)
    return tmp_path / "proc"


def test_the_tightest_group_of_version_2_on_the_way_up_counts(tmp_path: Path) -> None:
    tree = tmp_path / "a tree"
    write(tree)
    write(tree / "job", cpu__max="150000 100000", memory__max="8589934592", memory__current="100")
    write(
        tree / "job/step",
        cpu__max="max 100000",
        memory__max="max",
        memory__high="4294967296",
        memory__current="1073741824",
        memory__stat="anon 5\ninactive_file 73741824",
    )
    here = process(tmp_path, "0::/job/step", V2.format(folder=str(tree).replace(" ", "\\040")))
    assert cpu_quota(here) == 1.5
    assert memory_limit(here) == 2**32
    assert memory_left(here) == 2**32 - 10**9


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    write(tmp_path / "tree", cpu__max="50000 100000", memory__max="max")
    here = process(tmp_path, "0::/", V2.format(folder=tmp_path / "tree"))
    assert (cpu_quota(here), memory_limit(here)) == (0.5, None)


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_groups_of_version_1_are_found_by_controller(tmp_path: Path, root: str) -> None:
    tree = tmp_path / "tree"
    # With the root "/" the host's whole tree is mounted, but only this container's part of it may be seen.
    write(tree / "cpu,cpuacct", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    write(
        tree / "memory",
        memory__limit_in_bytes="2147483648",
        memory__usage_in_bytes="147483648",
        memory__stat="inactive_file 1\ntotal_inactive_file 47483648",
    )
    mounts = V1.format(root=root, folder=tree, name="cpu,cpuacct", controllers="cpu,cpuacct")
    mounts += V1.format(root=root, folder=tree, name="memory", controllers="memory")
    here = process(tmp_path, "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x", mounts)
    assert cpu_quota(here) == 2
    assert memory_limit(here) == 2**31
    assert memory_left(here) == 2**31 - 10**8


@pytest.mark.parametrize("version", [1, 2])
def test_the_fewest_processes_on_the_way_up_count(tmp_path: Path, version: int) -> None:
    tree = tmp_path / "tree"
    folder = tree / "pids" if version == 1 else tree
    write(folder / "job", pids__max="4096")
    write(folder / "job/step", pids__max="max")
    mount = (
        V1.format(root="/", folder=tree, name="pids", controllers="pids") if version == 1 else V2.format(folder=tree)
    )
    here = process(tmp_path, f"{'5:pids' if version == 1 else '0:'}:/job/step", mount)
    assert process_limit(here) == 4096
    assert process_limit(tmp_path / "nothing") is None


def test_missing_limits_limit_nothing(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(tree / "memory", memory__limit_in_bytes=UNLIMITED)
    mounts = V1.format(root="/", folder=tree, name="cpu", controllers="cpu")
    mounts += V1.format(root="/", folder=tree, name="memory", controllers="memory")
    here = process(tmp_path, "5:memory:/\n4:cpu:/", mounts)
    assert (cpu_quota(here), memory_limit(here), memory_left(here)) == (None, None, None)
    assert (cpu_quota(tmp_path / "nothing"), memory_limit(tmp_path / "nothing")) == (None, None)


def test_a_group_outside_of_what_is_mounted_falls_back_to_what_is(tmp_path: Path) -> None:
    write(tmp_path / "tree", cpu__max="300000 100000")
    here = process(tmp_path, "0::/../../elsewhere", V2.format(folder=tmp_path / "tree"))
    assert cpu_quota(here) == 3


@pytest.mark.parametrize(
    ("quota", "slurm", "cpus"),
    [
        (None, None, 4),
        (0.5, None, 1),
        (1.5, None, 1),
        (3.0, None, 3),
        (64.0, None, 4),
        (None, "2", 2),
        (3.0, "1", 1),
        (None, "64", 4),
        (None, "2(x2)", 4),
    ],
)
def test_a_quota_is_rounded_down_and_at_least_one(
    quota: float | None, slurm: str | None, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slurm gave a job counts too: without its plug-ins for CPUs nothing holds the job to it."""
    for name, value in {"SLURM_JOB_ID": slurm and "7", "SLURM_CPUS_ON_NODE": slurm}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices, "cpu_quota", lambda: quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)))
    assert devices.available_cpus() == cpus


def test_memory_is_the_machines_or_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_limit", lambda: None)
    whole = devices.total_memory()
    assert whole is not None
    monkeypatch.setattr(devices, "memory_limit", lambda: math.floor(whole) / 2)
    assert devices.total_memory() == math.floor(whole) / 2
    monkeypatch.setattr(devices, "memory_limit", lambda: 2 * whole)
    assert devices.total_memory() == whole
