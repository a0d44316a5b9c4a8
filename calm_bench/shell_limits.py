"""Limits that a shell or a scheduler sets for its processes (``ulimit``), and the command that lifts one."""

from __future__ import annotations

import resource


def lifted(option: str) -> str:
    """What lifts a limit as far as this user may: a command for the shell, such as ``ulimit -Sv unlimited``; where it
    is as high as that already, in words who can do more.

    Args:
        option: of ``ulimit``: ``v`` (addresses), ``f`` (size of a file), ``n`` (open files).
    """
    which = {"v": resource.RLIMIT_AS, "f": resource.RLIMIT_FSIZE, "n": resource.RLIMIT_NOFILE}[option]
    unit = 1 if option == "n" else 1024
    soft, hard = resource.getrlimit(which)
    if hard == resource.RLIM_INFINITY:
        return f"ulimit -S{option} unlimited"
    if soft < hard:
        # Beyond that not even root may go in a container.
        return f"ulimit -S{option} {hard // unit}"
    return f"ulimit -{option}, in a shell or a job that may have more: here it is at its hard limit"
