"""Where a result came from: code, libraries, machine. Written beside results, never part of an identity."""

from __future__ import annotations

import hashlib
import platform
import socket
import subprocess
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import calm_bench
from calm_bench.devices import device_name

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy", "ray", "optuna", "mlflow")


PACKAGES = ("calm_bench", "evals", "pipelines")


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
