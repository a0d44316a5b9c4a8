"""Work in progress in an object store: what an interrupted stage would go on from, on whichever host.

The work folder is uploaded aside of the training: when new checkpoints have appeared, at most once a minute, and once
more before a lease is given back. A host that dies costs what was done since the last upload.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
import warnings
from contextlib import suppress
from pathlib import Path

from calm_bench.atomic import is_temporary
from calm_bench.kept_folders import make_folder
from pipelines.store import manifest
from pipelines.store.layout import WORK
from pipelines.store.manifest import Manifest
from pipelines.store.object_store import ObjectStore
from pipelines.store.workspace import INPUTS

SAVE_EVERY_S = 60.0
"""Between two uploads, so that small checkpoints that are written often do not fill the line."""
POLL_S = 2.0
CHECKPOINTS = "checkpoints"


class CheckpointUploader:
    """Uploads one work folder while it is worked on.

    Args:
        folder: the work folder.
        outgoing: a folder beside it, on the same file system, for the moment of an upload.
        note: a file that remembers which upload the work folder agrees with.
    """

    def __init__(
        self, objects: ObjectStore, name: str, folder: Path, outgoing: Path, note: Path, every_s: float = SAVE_EVERY_S
    ) -> None:
        self._objects = objects
        self._name = name
        self._folder = folder
        self._outgoing = outgoing
        self._note = note
        self._every_s = every_s
        self._ended = threading.Event()
        self._before = saved_work(objects, name)
        self._sent = _checkpoints(folder) if note.exists() else {}
        self._thread = threading.Thread(target=self._watch, name=f"saving {name}", daemon=True)
        self._thread.start()

    def close(self, save: bool) -> None:
        """Stop; upload what has changed if ``save`` and if there is something to go on from."""
        self._ended.set()
        self._thread.join()
        if save and (found := _checkpoints(self._folder)) and found != self._sent:
            self._save(found)

    def _watch(self) -> None:
        last = time.monotonic() - self._every_s
        while not self._ended.wait(min(POLL_S, self._every_s)):
            if time.monotonic() - last < self._every_s:
                continue
            found = _checkpoints(self._folder)
            if found and found != self._sent:
                # A store away for a while must not disturb the training; there will be other checkpoints.
                with suppress(OSError):
                    self._save(found)
                last = time.monotonic()

    def _save(self, found: dict[str, tuple[int, int]]) -> None:
        copy = self._outgoing / f"{self._name}-{uuid.uuid4().hex}"
        try:
            names = _copy(self._folder, copy)
            token = uuid.uuid4().hex
            prefix = f"{WORK}/{self._name}"
            self._before = manifest.send(
                self._objects, f"{prefix}.json", prefix, copy, names, {"save": token}, before=self._before
            )
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        _remember(self._note, token)
        self._sent = found
        needed = {f"{prefix}/{piece.object}" for piece in self._before.files.values()}
        self._objects.delete(key for key in self._objects.list(prefix) if key not in needed)


def saved_work(objects: ObjectStore, name: str) -> Manifest | None:
    """What was uploaded of the work on the stage ``name``; None too where it cannot be read."""
    try:
        return manifest.read(objects, f"{WORK}/{name}.json")
    except ValueError:
        return None


def restore_work(objects: ObjectStore, name: str, folder: Path, incoming: Path, note: Path) -> None:
    """Replace the work folder by what another host has uploaded since this one worked on the stage, if it has.

    Damaged files are left out with a warning: a training goes back to the checkpoint before.
    """
    found = saved_work(objects, name)
    if found is None:
        return
    token = str(found.about.get("save"))
    if folder.is_dir() and note.exists() and note.read_text() == token:
        # Its own upload, and what it did since.
        return
    arriving = incoming / f"{name}-{uuid.uuid4().hex}"
    try:
        make_folder(arriving)
        for problem in manifest.fetch(objects, f"{WORK}/{name}", found, arriving):
            warnings.warn(f"{objects.uri(f'{WORK}/{name}')}: {problem}; going on without it", stacklevel=2)
        if folder.exists():
            shutil.rmtree(folder)
        make_folder(folder.parent)
        arriving.rename(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    _remember(note, token)


def delete_saved_work(objects: ObjectStore, name: str, note: Path) -> None:
    """Remove what was uploaded of the work on ``name``: the record first."""
    objects.delete([f"{WORK}/{name}.json"])
    objects.delete(objects.list(f"{WORK}/{name}"))
    note.unlink(missing_ok=True)


def _remember(note: Path, token: str) -> None:
    make_folder(note.parent)
    note.write_text(token)


def _checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished files of checkpoints with time and size, by which new ones are noticed."""
    found = {}
    for path in (folder / CHECKPOINTS).rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and not is_temporary(path):
                status = path.stat()
                found[path.relative_to(folder).as_posix()] = (status.st_mtime_ns, status.st_size)
    return found


def _copy(folder: Path, copy: Path) -> list[str]:
    """The files of a work folder at one moment, checkpoints first: what is younger than they are does no harm.

    Weights are replaced and never written into, so a link keeps them as they are; other files are copied.
    """
    names = []
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and not is_temporary(path)]
    paths.sort(key=lambda path: (path.relative_to(folder).parts[0] != CHECKPOINTS, path))
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name.startswith(f"{INPUTS}/"):
            continue
        target = copy / name
        make_folder(target.parent)
        # Old checkpoints are dropped while this goes on.
        with suppress(FileNotFoundError):
            if path.suffix == ".safetensors":
                os.link(path, target)
            else:
                shutil.copyfile(path, target)
            names.append(name)
    return names
