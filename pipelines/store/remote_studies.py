"""The folders of studies in a remote home: fetched before a study goes on, uploaded after each change.

Optuna's journal is one file that only grows, so at any time one driver writes it: it holds the lease of the study.
Drivers that are to share a study keep it in a database (``execution.optuna_storage``) or use a shared folder as store.
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

from calm_bench.atomic import write_bytes
from pipelines.store.home import Home
from pipelines.store.names import is_plain, stays_inside

FOLDER = "studies"
JOURNAL = "optuna.journal"
READ = ("trials.json", "leaderboard.json", "study.yaml")
"""What commands read of studies that they do not run."""


class RemoteStudies:
    """Keeps folders below ``root/studies`` and objects below ``studies/`` equal."""

    def __init__(self, home: Home, root: Path) -> None:
        self._home = home
        self._folder = root / FOLDER
        self._sent: dict[Path, tuple[int, int]] = {}

    def fetch(self, name: str) -> None:
        """Bring the study ``name`` here; its files here are replaced by those of the home."""
        prefix = f"{FOLDER}/{name}/"
        self._download([key for key in self._home.list(f"{FOLDER}/{name}") if stays_inside(key.removeprefix(prefix))])

    def save(self, name: str) -> None:
        """Upload the files of the study ``name`` that have changed since the last call."""
        changed = {}
        for path in sorted((self._folder / name).rglob("*")):
            inside = path.relative_to(self._folder)
            if path.is_file() and not path.is_symlink() and not any(_is_private(part) for part in inside.parts[1:]):
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._sent.get(path) != stamp:
                    changed[path] = stamp
        self._home.upload([(path, f"{FOLDER}/{path.relative_to(self._folder).as_posix()}") for path in changed])
        self._sent |= changed

    def folders(self, own: Container[str] = (), complete: bool = False) -> list[Path]:
        """Here, all studies that the home has, with the files in :data:`READ` as they are now.

        Args:
            own: studies that processes of this host run: what is here is newer, and theirs to write.
            complete: bring all files but journals.
        """
        keys = []
        names = set()
        for key in self._home.list(FOLDER):
            parts = key.split("/")
            if len(parts) >= 3 and is_plain(parts[1]):
                names.add(parts[1])
                wanted = parts[2] in READ or (complete and parts[2] != JOURNAL and stays_inside("/".join(parts[2:])))
                if wanted and parts[1] not in own:
                    keys.append(key)
        self._download(keys)
        return [self._folder / name for name in sorted(names)]

    def _download(self, keys: list[str]) -> None:
        for key, content in self._home.read_many(keys).items():
            path = self._folder / key.removeprefix(f"{FOLDER}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                write_bytes(path, content)
            status = path.stat()
            self._sent[path] = (status.st_mtime_ns, status.st_size)


def stages_of(folder: Path) -> set[str]:
    """Names of the stages of all trials of the study in ``folder``, as far as they can be read."""
    try:
        trials = json.loads((folder / "trials.json").read_text())
        found = {f"{kind}-{identity}" for trial in trials for kind, identity in trial["stages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in found if is_plain(name)}


def _is_private(part: str) -> bool:
    """Locks and half-written files concern this host alone."""
    return part.startswith(".") or part.endswith(".lock")
