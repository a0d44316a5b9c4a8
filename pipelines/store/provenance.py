"""Where a result came from: code, libraries, machine. Written beside results, never part of an identity.

provenance.json   of a finished stage, with all the attempts that it took
attempts.jsonl    these, a line each, while it is worked on
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

import calm_bench
from calm_bench.atomic import write_json
from calm_bench.devices import device_name, uses_tf32
from pipelines.common.record_file import read_object, validated
from pipelines.study.stage_folder import PROVENANCE_FILE

ATTEMPTS_FILE = "attempts.jsonl"
_REMEDY = "remove the stage's folder, and calm-bench run STUDY makes the stage again"
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy", "ray", "optuna", "mlflow")


PACKAGES = ("calm_bench", "evals", "pipelines")


class _Tolerant(BaseModel):
    """Older versions wrote less and newer ones may write more: no result depends on it."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Attempt(_Tolerant):
    """One process that worked on a stage."""

    started: float
    """Seconds since the epoch."""
    host: str = ""
    pid: int = 0
    device: str = ""


class GitState(_Tolerant):
    """The checkout that the code was run from."""

    commit: str
    modified: bool = False
    """Whether tracked files differed from the commit."""


class ProvenanceRecord(_Tolerant):
    """What ``provenance.json`` tells of a finished stage."""

    git: GitState | None = None
    """None for installed code."""
    versions: dict[str, str] = {}
    """By library, ``calm-bench`` and ``python`` included."""
    device: str | None = None
    tf32: bool = False
    """Whether matrix products of fp32 were made in TF32."""
    host: str | None = None
    platform: str | None = None
    seed: int | None = None
    wall_time_s: float | None = None
    """Seconds of the last attempt."""
    preparation_s: float | None = None
    flops: float | None = None
    """FLOPs of the training, where the stage trains."""
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> ProvenanceRecord | None:
        """Where the finished stage in ``folder`` came from; None where that is not on record.

        Raises:
            RecordError: the file is damaged.
        """
        path = folder / PROVENANCE_FILE
        try:
            return validated(cls, read_object(path, _REMEDY), path, _REMEDY)
        except FileNotFoundError:
            return None

    @property
    def ended(self) -> float | None:
        """When the last attempt ended, in seconds since the epoch; None where no attempt is on record."""
        return self.attempts[-1].started + (self.wall_time_s or 0.0) if self.attempts else None


def add_attempt(folder: Path, device: str) -> None:
    """Note in the work folder that this process begins to work on the stage."""
    attempt = {"started": time.time(), "host": socket.gethostname(), "pid": os.getpid(), "device": device}
    with (folder / ATTEMPTS_FILE).open("a") as file:
        file.write(json.dumps(attempt) + "\n")


def read_attempts(folder: Path) -> tuple[Attempt, ...]:
    """The attempts noted in a work folder, the oldest first; a line that is half written is left out."""
    try:
        text = (folder / ATTEMPTS_FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(Attempt.model_validate_json(line) for line in text.split("\n") if line.endswith("}"))


def write_provenance(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Keep ``provenance`` in the work folder of a stage that ends, with the attempts noted there."""
    attempts = [attempt.model_dump(exclude_unset=True) for attempt in read_attempts(folder)]
    write_json(folder / PROVENANCE_FILE, {**provenance, "attempts": attempts})


def provenance(
    device: str, seed: int | None, wall_time_s: float, flops: float | None, preparation_s: float = 0.0
) -> dict[str, Any]:
    """JSON-able record of one finished stage; ``device`` is ``cpu``, ``cuda`` or ``cuda:n``.

    ``wall_time_s`` is that of the last attempt, ``flops`` the training FLOPs where the stage trains. ``preparation_s``
    came before it: mostly the imports of a worker's first stage.
    """
    return {
        "git": git_state(Path(calm_bench.__file__).parent),
        "code": code_digest(),
        "versions": {"calm-bench": calm_bench.__version__, "python": platform.python_version(), **library_versions()},
        "device": device_name(device),
        **({"tf32": True} if uses_tf32(device) else {}),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "seed": seed,
        "wall_time_s": wall_time_s,
        "preparation_s": preparation_s,
        "flops": flops,
    }


@cache
def code_digest() -> str:
    """SHA-256 of the three packages as this process imports them: names and contents of their Python files."""
    digest = hashlib.sha256()
    for name in PACKAGES:
        root = Path(import_module(name).__path__[0])
        for path in sorted(root.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{name}/{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that ``folder`` is checked in to, and whether tracked files differ from it.

    None when the code is installed rather than checked out, without a commit, or without git.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # A virtual environment may lie inside a repository of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
