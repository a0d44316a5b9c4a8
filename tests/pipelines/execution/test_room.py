from __future__ import annotations

import pytest

from pipelines.execution.capacity import unschedulable_reason
from pipelines.execution.worker_group import GIB

SMALL, LARGE = {"CPU": 4.0, "memory": 8.0 * GIB}, {"CPU": 16.0, "GPU": 8.0, "memory": 64.0 * GIB}


@pytest.mark.parametrize(
    ("nodes", "worker", "size", "on_one_node"),
    [
        ([SMALL], {"CPU": 4.0}, 1, False),
        ([SMALL, SMALL], {"CPU": 3.0}, 2, False),
        ([SMALL, LARGE], {"CPU": 1.0, "GPU": 1.0}, 8, True),
        ([LARGE], {"CPU": 0.1, "GPU": 0.1}, 80, False),
        ([LARGE], {"CPU": 0.0, "memory": 64.0 * GIB}, 1, False),
    ],
)
def test_there_is_room(nodes: list[dict[str, float]], worker: dict[str, float], size: int, on_one_node: bool) -> None:
    assert unschedulable_reason(nodes, worker, size, on_one_node) is None


@pytest.mark.parametrize(
    ("nodes", "worker", "size", "on_one_node", "said"),
    [
        ([SMALL, SMALL], {"CPU": 5.0}, 1, False, "needs 5 CPU, and the cluster has 2 nodes with 4 CPU. It waits"),
        ([SMALL], {"CPU": 1.0, "GPU": 1.0}, 1, False, "needs 1 CPU, 1 GPU, and the cluster has 1 node with 4 CPU, 0"),
        ([SMALL, SMALL], {"CPU": 3.0}, 3, False, "needs 3 workers with 3 CPU each"),
        ([SMALL, LARGE], {"CPU": 2.0}, 9, True, "needs 9 workers on one node with 2 CPU each"),
        ([SMALL, LARGE], {"CPU": 20.0}, 1, False, "the cluster has 2 nodes with 16 CPU or 4 CPU."),
        ([SMALL], {"memory": 9.0 * GIB}, 1, False, "needs 9 GiB of memory, and the cluster has 1 node with 8 GiB"),
        ([], {"CPU": 1.0}, 1, False, "the cluster has no node."),
    ],
)  # fmt: skip
def test_there_is_none(
    nodes: list[dict[str, float]], worker: dict[str, float], size: int, on_one_node: bool, said: str
) -> None:
    assert said in (unschedulable_reason(nodes, worker, size, on_one_node) or "")
