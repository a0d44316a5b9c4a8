from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from calm_bench.devices import available_cpus
from calm_bench.parallel_files import map_files

pytestmark = pytest.mark.quick


def test_results_keep_the_order_of_the_files() -> None:
    assert map_files(lambda number: number * number, range(100)) == [number * number for number in range(100)]
    assert map_files(str, []) == []


@pytest.mark.skipif(available_cpus() < 2, reason="one CPU reads one file after the other")
def test_files_are_read_at_once() -> None:
    both = threading.Barrier(2, timeout=300)
    assert map_files(lambda _: both.wait() >= 0, [1, 2]) == [True, True]


@pytest.mark.parametrize("late_s", [0.0, 1.0])
def test_the_first_error_is_told_and_the_rest_left(late_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late whoever asked hears of it: a busy machine lets it wait."""
    read: list[int] = []
    pool_map = ThreadPoolExecutor.map

    def failing(number: int) -> int:
        read.append(number)
        if number in (3, 5):
            raise ValueError(f"no {number}")
        time.sleep(0.001 * (number > 5))
        return number

    def slow_map(*arguments: Any) -> Any:
        found = pool_map(*arguments)
        time.sleep(late_s)
        return found

    monkeypatch.setattr(ThreadPoolExecutor, "map", slow_map)

    with pytest.raises(ValueError, match="no 3"):
        map_files(failing, range(10_000))
    assert len(read) < 1000
