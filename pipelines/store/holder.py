"""The process that holds a lease, told from all others on all hosts."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    pid: int
    started: float
    """Start time of the process, since process numbers are used again."""
    token: str
    """Unique to this lease."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"

    def is_gone(self) -> bool:
        """Whether the process is known not to exist; always False for one on another host."""
        import psutil

        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            # Two readings of one start time differ by rounding only.
            return bool(abs(process.create_time() - self.started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def this_process() -> Holder:
    """A holder that is this process, for one lease."""
    import psutil

    return Holder(_host(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)


@cache
def _host() -> str:
    """Host name and, where the system tells it, the process number space: containers can share a host name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()
