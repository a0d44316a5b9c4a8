"""The store: finished stages by identity, and work in progress.

    <root>/stages/<kind>/<identity>/   finished: config.json, result.json, provenance.json, metrics.jsonl, artifacts,
                                       and files.json, which holds the hashes of all of them
    <root>/work/<kind>-<identity>/     unfinished; kept over crashes so that training continues where it was
    <root>/damaged/                    stages that were found damaged and are made anew; `calm-bench store gc` clears it
    <root>/leases/                     who works on what
    <root>/studies/<name>-<identity>/  journals and leaderboards

A finished folder appears by one rename: whoever sees it sees all of it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calm_bench.atomic import is_temporary, write_bytes
from pipelines.stages.stage import Stage
from pipelines.store.intact import find_damage, record_files
from pipelines.store.lease import EXPIRY_S, HEARTBEAT_S, Holder, Lease, Leases

ATTEMPTS = "attempts.jsonl"
ERROR = "error.txt"
"""The traceback of the last attempt that failed, in the work folder."""


class Store:
    """Stage folders under one root, on a local or shared file system."""

    def __init__(self, root: Path | str, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.root = Path(root).absolute()
        self.leases = Leases(self.root / "leases", expiry_s, heartbeat_s)

    def folder(self, stage: Stage) -> Path:
        """Where the finished stage is, or will be."""
        return self.root / "stages" / stage.kind / stage.identity

    def work_folder(self, stage: Stage) -> Path:
        """Where the stage is worked on until it is finished."""
        return self.root / "work" / stage.name

    def is_done(self, stage: Stage) -> bool:
        return (self.folder(stage) / "result.json").is_file()

    def result(self, stage: Stage) -> dict[str, Any]:
        """What the finished stage returned.

        Raises:
            FileNotFoundError: the stage is not finished.
        """
        result: dict[str, Any] = json.loads((self.folder(stage) / "result.json").read_text())
        return result

    def claim(self, stage: Stage) -> Lease | None:
        """The exclusive right to work on ``stage`` (a context manager), or None while a live process has it."""
        return self.leases.acquire(stage.name)

    def is_claimed(self, stage: Stage) -> bool:
        """Whether a live process works on ``stage``."""
        return self.holder(stage) is not None

    def holder(self, stage: Stage) -> Holder | None:
        """The live process that works on ``stage``, if any."""
        return self.leases.holder(stage.name)

    def open_work(self, stage: Stage, device: str) -> Path:
        """The work folder, made or found as an earlier attempt left it; notes this attempt."""
        folder = self.work_folder(stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", stage.description())
        attempt = {"started": time.time(), "host": socket.gethostname(), "pid": os.getpid(), "device": device}
        with (folder / ATTEMPTS).open("a") as file:
            file.write(json.dumps(attempt) + "\n")
        return folder

    def publish(
        self,
        stage: Stage,
        result: Mapping[str, Any],
        provenance: Mapping[str, Any],
        scratch: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Make the work folder the finished stage, without the names in ``scratch``; return the result as stored.

        Raises:
            ValueError, TypeError: the result is not JSON, or holds NaN or infinity.
        """
        work, final = self.work_folder(stage), self.folder(stage)
        attempts = work / ATTEMPTS
        history = [json.loads(line) for line in attempts.read_text().splitlines()] if attempts.exists() else []
        write_json(work / "provenance.json", {**provenance, "attempts": history})
        left_by_killed = [path for path in work.rglob(".*") if is_temporary(path)]
        for path in (*left_by_killed, *(work / name for name in (*scratch, ATTEMPTS, ERROR))):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_json(work / "result.json", result)
        record_files(work)
        _flush_tree(work)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            work.rename(final)
        except OSError:
            # Someone finished the same stage while this process was taken for dead: equal work, theirs stands.
            if not self.is_done(stage):
                raise
            shutil.rmtree(work)
        _flush(final.parent)
        return self.result(stage)

    def damage(self, stage: Stage) -> list[str]:
        """What keeps ``stage`` from being read: files that are missing or changed; reads all of them.

        Empty for an intact stage, and for one without recorded hashes as long as its result is there.
        """
        if not self.is_done(stage):
            return ["it is not in the store"]
        return find_damage(self.folder(stage)) or []

    def set_aside(self, stage: Stage) -> Path | None:
        """Move a damaged finished stage out of the way, so that it is made anew; returns where to.

        None where another process has done so, or works on it.
        """
        lease = self.claim(stage)
        if lease is None:
            return None
        with lease:
            place = self.root / "damaged" / f"{stage.name}-{time.time_ns():x}"
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.folder(stage).rename(place)
            except FileNotFoundError:
                return None
            return place


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def _flush_tree(folder: Path) -> None:
    """Bring every file and folder below ``folder`` to disk, so that a power cut cannot leave a renamed husk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(Path(place) / name)
        _flush(Path(place))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
