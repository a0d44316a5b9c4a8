"""What a step frees is there for the next one, without the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from calm_bench.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory() is (sys.argv[2] == "True")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]

def step():
    for size, count in ((16 << 20, 1), (4 << 20, 20)):
        held = [libc.malloc(size) for _ in range(count)]
        for piece in held:
            libc.memset(piece, 1, size)
        for piece in held:
            libc.free(piece)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print((faults() - before) // 5)
"""


def faults(how: str, is_set: bool = True, **variables: str) -> int:
    """Pages that a step of 80 MB asks the system for."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(is_set)], capture_output=True, text=True, check=False, env=variables
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_steps_ask_the_system_once() -> None:
    assert faults("given back") > 10_000
    assert faults("kept") < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_the_user_has_set_stays() -> None:
    assert faults("kept", is_set=False, MALLOC_TRIM_THRESHOLD_="1000000") > 10_000
