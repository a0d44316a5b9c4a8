"""Copies of studies on this machine, and the objects that they are copies of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from calm_bench.atomic import write_bytes
from calm_bench.kept_folders import make_folder
from pipelines.common.record_file import RecordError
from pipelines.store.holder import Holder, this_process
from pipelines.store.layout import JOURNAL, LEADERBOARD_FILE, PROGRESS, STUDIES
from pipelines.store.names import is_plain, stays_inside
from pipelines.store.object_store import ObjectStore
from pipelines.store.study_record import STUDY_FILE
from pipelines.store.trial_record import EARLIER_FILE, TRIALS_FILE, load_trials, refs_of

READ = (TRIALS_FILE, EARLIER_FILE, LEADERBOARD_FILE, STUDY_FILE)
"""What commands read of studies that they do not run."""


class StudyCopies:
    """Keeps folders below ``root/studies`` and objects below ``studies/`` equal."""

    def __init__(self, objects: ObjectStore, root: Path) -> None:
        self._objects = objects
        self._folder = root / STUDIES
        self._drivers = root / "drivers"
        self._sent: dict[Path, tuple[int, int]] = {}

    def folder(self, name: str) -> Path:
        """Where the study ``name`` has its files on this machine."""
        return self._folder / name

    @contextmanager
    def driving(self, name: str) -> Iterator[None]:
        """Let others who use this folder know that the files of the study ``name`` in it are this process's."""
        holder = this_process()
        mark = self._drivers / f"{name}.{holder.token}.json"
        write_bytes(mark, json.dumps(asdict(holder)).encode())
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def driven(self) -> set[str]:
        """The studies that living processes run in this folder; what is here of them is newer, and theirs to write."""
        found = set()
        for mark in self._drivers.glob("*.json"):
            try:
                holder = Holder(**json.loads(mark.read_text()))
                # Nothing tells the age of a mark, as it does that of a lease.
                is_gone = holder.is_gone() or holder.is_of_an_earlier_start()
            except (OSError, ValueError, TypeError):
                continue
            if is_gone:
                mark.unlink(missing_ok=True)
            else:
                found.add(mark.name.rsplit(".", 2)[0])
        return found

    def fetch(self, name: str) -> None:
        """Bring the study ``name`` here; its files here are replaced by those of the object store."""
        prefix = f"{STUDIES}/{name}/"
        inside = {key: key.removeprefix(prefix) for key in self._objects.list(f"{STUDIES}/{name}")}
        self._download([key for key, path in inside.items() if stays_inside(path) and not _is_progress(path)])

    def save(self, name: str) -> None:
        """Upload the files of the study ``name`` that have changed since the last call."""
        changed = {}
        for path in sorted((self._folder / name).rglob("*")):
            inside = path.relative_to(self._folder)
            if _is_progress(path.relative_to(self._folder / name).as_posix()):
                continue
            if path.is_file() and not path.is_symlink() and not any(_is_private(part) for part in inside.parts[1:]):
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._sent.get(path) != stamp:
                    changed[path] = stamp
        self._objects.upload([(path, f"{STUDIES}/{path.relative_to(self._folder).as_posix()}") for path in changed])
        self._sent |= changed

    def folders(self, complete: bool = False) -> list[Path]:
        """Here, all studies that the object store has, with the files in :data:`READ` as they are now.

        Args:
            complete: bring all files but journals.
        """
        own = self.driven()
        keys = []
        names = set()
        for key in self._objects.list(STUDIES):
            parts = key.split("/")
            if len(parts) >= 3 and is_plain(parts[1]):
                names.add(parts[1])
                others = complete and parts[2] not in (JOURNAL, PROGRESS) and stays_inside("/".join(parts[2:]))
                wanted = parts[2] in READ or others
                if wanted and parts[1] not in own:
                    keys.append(key)
        self._download(keys)
        return [self._folder / name for name in sorted(names)]

    def _download(self, keys: list[str]) -> None:
        for key, content in self._objects.read_many(keys).items():
            path = self._folder / key.removeprefix(f"{STUDIES}/")
            make_folder(path.parent)
            if not path.is_file() or path.read_bytes() != content:
                write_bytes(path, content)
            status = path.stat()
            self._sent[path] = (status.st_mtime_ns, status.st_size)


def stages_of(folder: Path) -> set[str]:
    """Names of the stages of all trials of the study in ``folder``, as far as they can be read."""
    try:
        return {ref.name for ref in refs_of(load_trials(folder))}
    except (OSError, RecordError):
        return set()


def _is_progress(path: str) -> bool:
    """What drivers tell those who watch goes its own way (:mod:`pipelines.store.remote_progress`)."""
    return path.partition("/")[0] == PROGRESS


def _is_private(part: str) -> bool:
    """Locks and half-written files concern this host alone."""
    return part.startswith(".") or part.endswith(".lock")
