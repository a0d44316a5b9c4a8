"""What we start listens on loopback: Ray's servers run whatever they are sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

import calm_bench
from pipelines.store.store import Store
from tests.faults.small_study import STUDY, begun, kill_with_children, start_run, wait_for

ROOT = Path(calm_bench.__file__).parent.parent


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
def test_all_that_a_run_starts_listens_on_loopback(tmp_path: Path) -> None:
    file, store = tmp_path / "faults.yaml", Store(tmp_path / "store")
    file.write_text(yaml.safe_dump(STUDY | {"execution": {"workers": 1}}))
    run = start_run(file, store, folder=tmp_path)
    try:
        wait_for(lambda: begun(store, "autoencoder"), "a training has a checkpoint", of=run)
        found: dict[str, list[str]] = {}
        for process in (me := psutil.Process(run.pid), *me.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(process.name(), []).extend(listening(process))
    finally:
        kill_with_children(run)
    for server in ("raylet", "gcs_server", "ray::autoencoder"):
        assert any(server in name and addresses for name, addresses in found.items()), found
    assert not {name: addresses for name, addresses in found.items() if not all(map(is_loopback, addresses))}


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
