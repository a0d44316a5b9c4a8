"""What we start listens on loopback: Ray's servers run whatever they are sent."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import calm_bench
from pipelines.execution.ray_executor import RayExecutor
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.stage import STAGE_KINDS, Stage, StageKind

ROOT = Path(calm_bench.__file__).parent.parent


def _toy(
    stage: Stage, inputs: Mapping[str, Path], folder: Path, device: str, stop: Callable[[], bool]
) -> dict[str, Any]:
    return {"sockets": sorted(listening(psutil.Process()))}


def listening(process: psutil.Process) -> Iterator[str]:
    """Addresses on which ``process`` accepts connections, and datagrams from anybody."""
    for connection in process.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN or (connection.type.name == "SOCK_DGRAM" and not connection.raddr):
            yield connection.laddr.ip


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def test_addresses_are_told_apart() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2")))


@pytest.mark.slow
def test_a_private_ray_listens_on_loopback(tmp_path: Path) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    STAGE_KINDS.register("listens", StageKind("listens", _toy, uses_torch=False))
    executor = RayExecutor(Store(tmp_path / "store"), Execution(max_parallel=1))
    try:
        in_worker = executor.submit(Stage("listens", 1, {"seed": 0})).result()["sockets"]
        me = psutil.Process()
        found = {
            process.name(): sorted(listening(process))
            for process in (me, *me.children(recursive=True))
            if process.status() != psutil.STATUS_ZOMBIE
        }
    finally:
        executor.close()
    assert any("raylet" in name for name in found), found
    assert any("gcs_server" in name for name in found), found
    assert in_worker
    open_to_all = {name: addresses for name, addresses in found.items() if not all(map(is_loopback, addresses))}
    assert not open_to_all
    assert all(map(is_loopback, in_worker))


@pytest.mark.parametrize("package", ["calm_bench", "evals", "pipelines"])
def test_no_address_of_all_interfaces_is_in_our_code(package: str) -> None:
    anywhere = ("0.0.0.0", "[::]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if any(address in line for address in anywhere)
    ]
    assert found == []
