from __future__ import annotations

import threading

import pytest

from calm_bench.devices import available_cpus
from calm_bench.parallel_files import map_files

pytestmark = pytest.mark.quick


def test_results_keep_the_order_of_the_files() -> None:
    assert map_files(lambda number: number * number, range(100)) == [number * number for number in range(100)]
    assert map_files(str, []) == []


@pytest.mark.skipif(available_cpus() < 2, reason="one CPU reads one file after the other")
def test_files_are_read_at_once() -> None:
    both = threading.Barrier(2, timeout=30)
    assert map_files(lambda _: both.wait() >= 0, [1, 2]) == [True, True]


def test_the_first_error_is_told_and_the_rest_left() -> None:
    read: list[int] = []

    def failing(number: int) -> int:
        read.append(number)
        if number in (3, 5):
            raise ValueError(f"no {number}")
        return number

    with pytest.raises(ValueError, match="no 3"):
        map_files(failing, range(10_000))
    assert len(read) < 10_000
