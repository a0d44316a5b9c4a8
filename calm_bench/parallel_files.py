"""The same reading of many files, by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from calm_bench.devices import available_cpus

MOST_THREADS = 8
"""Of one SHA-256 each, some 10 GB per second together: more than most disks and networks bring."""

File = TypeVar("File")
Found = TypeVar("Found")


def map_files(read: Callable[[File], Found], files: Iterable[File]) -> list[Found]:
    """``read`` of every file, in the order of ``files``.

    For what leaves the interpreter to others while it works, as hashing and waiting for a disk do: a terabyte of text
    in one thread takes ten minutes and more. The first error, in this order, is raised once the readings under way have
    ended; those not begun are left.
    """
    listed = list(files)
    threads = min(MOST_THREADS, available_cpus(), len(listed))
    if threads < 2:
        return [read(file) for file in listed]
    failed: list[int] = []

    def read_unless_left(number: int, file: File) -> Found | None:
        # The pool is told of an error by this function's caller, who may be late: thousands may be read meanwhile.
        if failed and failed[0] < number:
            return None
        try:
            return read(file)
        except BaseException:
            failed.append(number)
            raise

    pool = ThreadPoolExecutor(threads, thread_name_prefix="files")
    try:
        # None stands behind an error only, which is raised here.
        return cast(list[Found], list(pool.map(read_unless_left, range(len(listed)), listed)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
