"""How fast a text of many files is hashed for its identity, by one thread and by those that hash together.

    python -m bench.hashing [--files 16] [--megabytes 128] [--rounds 5]

Files are read from memory, where they were just written; rounds alternate, medians are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import machine
from calm_bench.fingerprint import file_digest
from calm_bench.parallel_files import map_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--megabytes", type=int, default=128, help="of each file")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.bin") for number in range(asked.files)]
        block = os.urandom(10**6)
        for file in files:
            file.write_bytes(block * asked.megabytes)
        ways: dict[str, Callable[[], object]] = {
            "one thread": lambda: [file_digest(file) for file in files],
            "together": lambda: map_files(file_digest, files),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, work in ways.items():
                begun = time.perf_counter()
                work()
                seconds[way].append(time.perf_counter() - begun)
    print(f"{asked.files} files of {asked.megabytes} MB, {asked.rounds} rounds; {machine()}")
    for way, found in seconds.items():
        print(f"{way}: {asked.files * asked.megabytes / 1000 / statistics.median(found):.2f} GB/s")


if __name__ == "__main__":
    main()
