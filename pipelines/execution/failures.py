"""Why a stage failed, and whether trying again may help."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from calm_bench.errors import CalmBenchError, RunError

Cause = Literal["permanent", "transient", "memory"]
"""``transient``: a worker, a disk or a network let the stage down, and the next try may do better. ``memory``: it does
not fit, and would not fit the next time either. ``permanent``: the same would happen again."""

_MEMORY_TEXTS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    # Of cuBLAS and cuDNN, where a GPU is full.
    "status_alloc_failed",
)
_MISTAKES = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors of files that lie in what was asked for rather than in the machine."""
_IO_TEXTS = ("i/o error", "no space left on device", "disk quota exceeded", "file too large")
"""How libraries that raise no OSError tell of one."""


class WorkerFailed(RunError):
    """What failed in another process, in words only, so that it crosses its border whatever the error was."""

    def __init__(self, name: str, text: str, details: str, cause: Cause, input_explained: bool = True) -> None:
        super().__init__(name, text, details, cause, input_explained)
        self.name = name
        """Class of the error."""
        self.text = text
        self.details = details
        """The traceback there."""
        self.cause: Cause = cause
        self.input_explained = input_explained
        """:attr:`calm_bench.errors.CalmBenchError.input_explains` of the error."""

    @staticmethod
    def of(error: BaseException) -> WorkerFailed:
        """The words of ``error``, which is being handled."""
        return WorkerFailed(
            type(error).__name__, with_notes(error), traceback.format_exc(), cause_of(error), input_may_explain(error)
        )

    def __str__(self) -> str:
        return self.text


def with_notes(error: BaseException) -> str:
    """What ``error`` says, with what was noted on its way: how to do without what failed."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    return f"{error} ({notes})" if notes else str(error)


def name_of(error: BaseException) -> str:
    """The class of ``error``, here or where it was raised."""
    return error.name if isinstance(error, WorkerFailed) else type(error).__name__


def input_may_explain(error: BaseException) -> bool:
    """Whether a damaged input could be behind ``error``, raised here or in another process."""
    if isinstance(error, WorkerFailed):
        return error.input_explained
    return not isinstance(error, CalmBenchError) or error.input_explains


def cause_of(error: BaseException) -> Cause:
    """What kind of failure ``error`` is, by itself or by what it was raised from."""
    chain = list(_chain(error))
    if told := [link.cause for link in chain if isinstance(link, WorkerFailed)]:
        return told[0]
    if any(_is_memory(link) for link in chain):
        return "memory"
    if any(_is_transient(link) for link in chain):
        return "transient"
    return "permanent"


def let_go(error: BaseException) -> None:
    """Clear the variables of the calls that ``error`` has left, and what it was raised from: a model on a GPU, whose
    memory the next stage needs, would be held as long as somebody holds the error."""
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)


def kernel_kills() -> int:
    """How many processes the kernel's out-of-memory killer has ended here so far; 0 where it does not tell."""
    # In a container the machine's count would also tell of its neighbours.
    own = Path("/sys/fs/cgroup/memory.events")
    return _counter(own if own.exists() else Path("/proc/vmstat"), "oom_kill")


def _counter(path: Path, name: str) -> int:
    """The number behind ``name`` in a file of ``name number`` lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines)
    return sum(int(field[1]) for field in fields if len(field) == 2 and field[0] == name and field[1].isdigit())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _is_memory(error: BaseException) -> bool:
    # By name: torch and Ray have a class of this name each, and neither should be imported for it.
    if isinstance(error, MemoryError) or any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def _is_transient(error: BaseException) -> bool:
    # Errors of the network are no OSError in every library.
    if isinstance(error, CalmBenchError) and error.may_pass:
        return True
    if isinstance(error, OSError):
        return not isinstance(error, _MISTAKES)
    return type(error).__name__ == "SafetensorError" and any(text in str(error).lower() for text in _IO_TEXTS)
