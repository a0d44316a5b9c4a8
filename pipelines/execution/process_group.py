"""How the workers of one training find each other: over the address by which Ray knows their nodes, and no other.

Left to itself, torch lets the first worker listen on every address of its machine, and gloo takes the one that the
host's name resolves to: on many systems a loopback address, which workers on other nodes cannot reach. A private Ray
is on loopback, so there nothing of this listens anywhere else.

Imports Ray and torch; :mod:`pipelines.execution.ray_train` imports it where these are needed.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store, init_process_group

LOOPBACK = "127.0.0.1"

sigterm = threading.Event()
"""Set in a worker that was told to end. Ray's own handler would end it at once, before it has saved."""
_served: list[Store] = []
"""Stores that first workers serve: each must outlive the call that opened it."""


@dataclass
class OwnAddress(TorchConfig):
    """Ray Train's process group of torch, over the nodes' own addresses."""

    @property
    def backend_cls(self) -> type[Any]:
        return _Backend


# Not named in an import, since Ray gives it no public name: it shows each worker its node's GPUs, and ends the group.
_Torch: Any = TorchConfig().backend_cls


class _Backend(_Torch):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: OwnAddress) -> None:
        worker_group.execute(_hear_sigterm)
        worker_group.execute(_choose_interfaces)
        address, port = worker_group.execute_single(0, _serve, backend_config.timeout_s)
        joined = [
            worker_group.execute_single_async(
                rank, _join, backend_config.backend, address, port, rank, len(worker_group), backend_config.timeout_s
            )
            for rank in range(len(worker_group))
        ]
        ray.get(joined)


def _hear_sigterm() -> None:
    """In every worker, in its main thread; the training has another one."""
    signal.signal(signal.SIGTERM, lambda number, frame: sigterm.set())


def interface_of(address: str) -> str | None:
    """The name of the network interface that has ``address``; None where no one has, behind a translated address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(own.address.partition("%")[0] == address for own in addresses):
            return str(name)
    return None


def _choose_interfaces() -> None:
    """In every worker: what the machine's owner has set stays."""
    address = ray.util.get_node_ip_address()
    interface = interface_of(address)
    if interface is None:
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if address == LOOPBACK:
        # Between nodes NCCL knows better: it may find a faster network than the one that Ray uses.
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _serve(timeout_s: int) -> tuple[str, int]:
    """In the first worker: open the store by which the others find it; returns where."""
    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        # The store owns the descriptor from here on.
        store = TCPStore(
            address,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
            master_listen_fd=os.dup(listener.fileno()),
        )
    _served[:] = [store]
    return address, port


def _join(backend: str, address: str, port: int, rank: int, size: int, timeout_s: int) -> None:
    """In every worker."""
    timeout = timedelta(seconds=timeout_s)
    store = _served[0] if rank == 0 else TCPStore(address, port, is_master=False, timeout=timeout)
    init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
