"""Whether nodes have the capacity for a stage at all, even if nothing else ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.execution.worker_group import GIB

_WORDS = {"CPU": "CPU", "GPU": "GPU", "memory": "GiB of memory"}

Resources = Mapping[str, float]
"""Amounts by Ray's names."""


def unschedulable_reason(
    nodes: Sequence[Resources], worker: Resources, size: int = 1, on_one_node: bool = False
) -> str | None:
    """Why ``size`` workers cannot be placed on ``nodes``, in words; None where they can.

    Args:
        nodes: what each living node has in all.
        worker: what each worker needs, whole on one node.
        on_one_node: whether all workers must be on the same.
    """
    capacities = [_capacity(node, worker) for node in nodes]
    if (max(capacities, default=0) if on_one_node else sum(capacities)) >= size:
        return None
    needed = _amounts(worker)
    if size > 1:
        needed = f"{size} workers{' on one node' if on_one_node else ''} with {needed} each"
    if nodes:
        # Of equal nodes, of which clusters mostly consist, a number will do.
        kinds = sorted({tuple(node.get(name, 0.0) for name in worker) for node in nodes}, reverse=True)
        told = " or ".join(_amounts(dict(zip(worker, kind, strict=True))) for kind in kinds)
        there = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} with {told}"
    else:
        there = "no node"
    return f"it needs {needed}, and the cluster has {there}. It waits for nodes to join; Ctrl-C stops the study"


def _capacity(node: Resources, worker: Resources) -> int:
    """How many workers fit on ``node``."""
    # Ray counts in ten-thousandths.
    return min((int(node.get(name, 0.0) / amount + 1e-4) for name, amount in worker.items() if amount > 0), default=1)


def _amounts(resources: Resources) -> str:
    found = (
        f"{amount / GIB if name == 'memory' else amount:.4g} {_WORDS.get(name, name)}"
        for name, amount in resources.items()
    )
    return ", ".join(found)
