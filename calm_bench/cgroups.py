"""Limits that a container or a job sets on this process: CPU time, memory and processes of control groups, of version 1
and 2.

A process is in a group for each controller, and every group above that one limits it too. What a container sees as the
root of its groups is its own group, or the whole tree of its host, of which only its part may be mounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SELF = Path("/proc/self")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_UNLIMITED = 2**60
"""Version 1 writes a missing limit of memory as the largest multiple of a page, more than any machine has."""


@dataclass(frozen=True)
class Mount:
    """A mounted tree of control groups."""

    controllers: frozenset[str]
    """Those of version 1; empty for version 2, which has one tree for all."""
    root: str
    """The group that is seen at :attr:`folder`."""
    folder: Path


def cpu_quota(process: Path = SELF) -> float | None:
    """CPUs that this process may use at most, as a share of time; ``None`` where nothing limits it.

    Args:
        process: its folder in ``/proc``.
    """
    return min(_quotas(process), default=None)


def memory_limit(process: Path = SELF) -> float | None:
    """Bytes that this process and those beside it in its group may use; ``None`` where nothing limits them."""
    return min((limit for limit, _ in _memory(process)), default=None)


def memory_left(process: Path = SELF) -> float | None:
    """Bytes of :func:`memory_limit` that are not in use, cached files not counted; ``None`` where nothing limits it."""
    return min((max(0.0, limit - used) for limit, used in _memory(process)), default=None)


def process_limit(process: Path = SELF) -> int | None:
    """Processes and threads that there may be in this one's group; ``None`` where nothing limits them."""
    found = (_read(folder / "pids.max") for folder in _groups(process, "pids"))
    return min((int(limit) for limit in found if limit.isdigit()), default=None)


def _quotas(process: Path) -> Iterator[float]:
    for folder in _groups(process, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _memory(process: Path) -> Iterator[tuple[float, float]]:
    """Limit and use of every group that has a limit, in bytes."""
    for folder in _groups(process, "memory"):
        statistics = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
        limits = [_read(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes") or "0"
        cached = statistics.get("total_inactive_file") or statistics.get("inactive_file", "0")
        for limit in limits:
            if limit.isdigit() and int(limit) < _UNLIMITED:
                yield float(limit), float(used) - float(cached)


def _groups(process: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in for ``controller``, the innermost first."""
    paths = _paths(process, controller)
    for mount in _mounts(process):
        if mount.controllers and controller not in mount.controllers:
            continue
        path = paths.get(bool(mount.controllers))
        if path is None:
            continue
        inside = _below(path, mount.root)
        folder = mount.folder / inside if inside is not None else mount.folder
        # Groups that are not seen from here, since another container's view was handed on, are left out.
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount.folder) and each.is_dir())


def _below(path: str, root: str) -> Path | None:
    """``path`` as it is seen from the group ``root``; ``None`` where it lies elsewhere."""
    parts, above = Path(path).parts, Path(root).parts
    if ".." in parts or parts[: len(above)] != above:
        return None
    return Path(*parts[len(above) :])


def _paths(process: Path, controller: str) -> dict[bool, str]:
    """The path of the process's group for ``controller`` in trees of version 1 (true) and in that of version 2."""
    found = {}
    for line in _read(process / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            found[False] = path
        elif controller in names.split(","):
            found[True] = path
    return found


def _mounts(process: Path) -> Iterator[Mount]:
    for line in _read(process / "mountinfo").splitlines():
        mount, _, source = line.partition(" - ")
        fields, (kind, *_, options) = mount.split(), source.split() or [""] * 2
        if kind not in ("cgroup", "cgroup2") or len(fields) < 5:
            continue
        controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
        yield Mount(controllers, _plain(fields[3]), Path(_plain(fields[4])))


def _plain(text: str) -> str:
    """A path of a mount table with its spaces."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
