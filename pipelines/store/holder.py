"""The process that holds a lease, told from all others on all hosts."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROUNDING_S = 0.005
"""Two readings of one start time, of hundredths of a second, differ by less."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    pid: int
    started: float
    """Start time of the process (:func:`_start_of`), since process numbers are used again."""
    token: str
    """Unique to this lease."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"

    @property
    def is_here(self) -> bool:
        """Whether this host would know if the process had ended."""
        return self.host == _host()

    def is_gone(self) -> bool:
        """Whether the process is known not to exist; always False for one on another host."""
        if not self.is_here:
            return False
        try:
            # Of somebody else's process nothing else may be seen (/proc mounted with hidepid).
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        started = _start_of(self.pid)
        return started is not None and abs(started - self.started) > _ROUNDING_S

    def is_of_an_earlier_start(self) -> bool:
        """Whether a system of this one's name held it that has been started anew since, or another one so named."""
        mine, theirs = _host().split(" "), self.host.split(" ")
        return len(mine) == 3 and theirs[:2] == mine[:2] and theirs != mine


def this_process() -> Holder:
    """A holder that is this process, for one lease."""
    started = _start_of(os.getpid())
    return Holder(_host(), os.getpid(), 0.0 if started is None else started, uuid.uuid4().hex)


def _start_of(pid: int) -> float | None:
    """When a process began: in seconds since the system did where that tells it (Linux), and else since the epoch.

    A clock may be set while a study runs, and what is told since the epoch moves with it.

    Returns:
        Infinity for one that has ended and of which its parent has not heard yet; None where it may not be seen.
    """
    import psutil

    try:
        # The name of the program, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return float("inf") if fields[0] == b"Z" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        pass
    try:
        process = psutil.Process(pid)
        return float("inf") if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


@cache
def _host() -> str:
    """Host name and, where the system tells them, the process number space and the start of the system.

    Containers can share a host name, and so can machines that were copied; and times since a start are those of
    another start by chance.
    """
    return " ".join(filter(None, (socket.gethostname(), _read_link("/proc/self/ns/pid"), _boot())))


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
