"""Copies of finished stages on this machine, fetched from an object store when they are needed."""

from __future__ import annotations

import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from calm_bench.kept_elsewhere import ELSEWHERE, KeptFile, keep_elsewhere
from calm_bench.kept_folders import make_folder
from pipelines.store import manifest
from pipelines.store.errors import CorruptedStage
from pipelines.store.integrity import RECORD, verify_folder
from pipelines.store.layout import stage_folder
from pipelines.store.manifest import FileEntry
from pipelines.store.object_store import ObjectStore
from pipelines.store.published_index import PublishedIndex
from pipelines.store.refs import StageRef

SMALL_BYTES = 2**20
"""Files up to this size belong to a stage's summary; metrics, which are lines of JSON, always do."""


class LocalCache:
    """The folders below ``root/stages``. A whole one appears by one rename; one without its record is a summary, or it
    says where what it lacks is kept.
    """

    def __init__(self, objects: ObjectStore, root: Path, published: PublishedIndex) -> None:
        self._objects = objects
        self._root = root
        self._published = published

    def folder(self, kind: str, identity: str) -> Path:
        """Where the stage is, or will be."""
        return stage_folder(self._root, kind, identity)

    def is_whole(self, kind: str, identity: str) -> bool:
        """Whether all files of the stage are here."""
        return (self.folder(kind, identity) / RECORD).is_file()

    def fetch(self, kind: str, identity: str) -> Path:
        """The folder of the finished stage with all its files.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """
        final = self.folder(kind, identity)
        if self.is_whole(kind, identity):
            return final
        found = self._published.record(f"{kind}-{identity}")
        with self._incoming() as incoming:
            arriving = incoming / kind / identity
            make_folder(arriving)
            problems = manifest.fetch(self._objects, prefix_of(kind, identity), found, arriving)
            # Its own record tells whether it is the stage that its name says.
            problems = problems or verify_folder(arriving) or []
            if problems or RECORD not in found.files:
                raise CorruptedStage(problems or [f"{RECORD} is missing"])
            _move(arriving, final)
        return final

    def fetch_without(self, kind: str, identity: str, left_out: tuple[str, ...], into: Path) -> None:
        """Put the files of the finished stage into the folder ``into``, in the place of what it held; those whose names
        begin as one of ``left_out`` are not downloaded: ``into`` then says where they are kept.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """
        found = self._published.record(f"{kind}-{identity}")
        prefix = prefix_of(kind, identity)
        shutil.rmtree(into, ignore_errors=True)
        elsewhere = {name for name in found.files if name.startswith(left_out)}
        if problems := manifest.fetch(self._objects, prefix, found, into, found.files.keys() - elsewhere - {RECORD}):
            raise CorruptedStage(problems)
        files = {name: found.files[name] for name in elsewhere}
        keep_elsewhere(
            into,
            {name: KeptFile(self._objects.uri(f"{prefix}/{file.object}"), file.sha256) for name, file in files.items()},
        )

    def fetch_some(self, kind: str, identity: str, left_out: tuple[str, ...]) -> Path:
        """The folder of the finished stage here, made by :meth:`fetch_without` where it is not; what is brought of the
        rest stays in it.

        Raises:
            FileNotFoundError, CorruptedStage: as :meth:`fetch_without`.
        """
        final = self.folder(kind, identity)
        if self.is_whole(kind, identity) or (final / ELSEWHERE).is_file():
            return final
        with self._incoming() as incoming:
            arriving = incoming / kind / identity
            self.fetch_without(kind, identity, left_out, arriving)
            _move(arriving, final)
        return final

    def prefetch(self, names: Iterable[str]) -> None:
        """Download the small files of the finished stages ``names``, many at once; what is here is left alone.

        Raises:
            CorruptedStage: some are not what was published, and are not kept; the other stages are here then.
        """
        missing = [ref for ref in map(StageRef.parse, names) if not self.folder(ref.kind, ref.identity).is_dir()]
        if not missing:
            return
        damage: dict[StageRef, list[str]] = defaultdict(list)
        with self._incoming() as incoming:
            wanted = [(ref, name, piece) for ref in missing for name, piece in self._small(ref)]
            files = [
                (
                    f"{prefix_of(ref.kind, ref.identity)}/{piece.object}",
                    incoming / ref.kind / ref.identity / name,
                    piece,
                )
                for ref, name, piece in wanted
            ]
            for (ref, name, _), problem in zip(wanted, manifest.fetch_files(self._objects, files), strict=True):
                if problem:
                    damage[ref].append(f"{name} {problem}")
            for folder in incoming.glob("*/*"):
                if StageRef(folder.parent.name, folder.name) not in damage:
                    _move(folder, self.folder(folder.parent.name, folder.name))
        if damage:
            raise CorruptedStage([self._told(ref, problems) for ref, problems in damage.items()])

    def _small(self, ref: StageRef) -> Iterator[tuple[str, FileEntry]]:
        """The files of a stage's summary."""
        for name, piece in self._published.record(ref.name).files.items():
            if name != RECORD and (piece.bytes <= SMALL_BYTES or name.endswith(".jsonl")):
                yield name, piece

    def _told(self, ref: StageRef, problems: Sequence[str]) -> str:
        where, record = self._objects.uri(prefix_of(ref.kind, ref.identity)), self._published.uri(ref.name)
        return f"{where} is damaged ({', '.join(problems)}): remove {record}, and calm-bench run STUDY makes it again"

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        arriving = self._root / "incoming" / uuid.uuid4().hex
        make_folder(arriving)
        try:
            yield arriving
        finally:
            shutil.rmtree(arriving, ignore_errors=True)


def prefix_of(kind: str, identity: str) -> str:
    """Below which key the files of a stage are."""
    return f"stages/{kind}/{identity}"


def _move(folder: Path, final: Path) -> None:
    """Rename ``folder`` to ``final``, in the place of less; another process may have brought the same by now."""
    make_folder(final.parent)
    if final.is_dir() and _completeness(folder) > _completeness(final):
        with suppress(FileNotFoundError):
            final.rename(folder.with_name(f"{folder.name}-summary"))
    try:
        folder.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def _completeness(folder: Path) -> int:
    """0 of a summary, 1 of a folder that says where the rest is kept, 2 of a whole one."""
    return 2 if (folder / RECORD).is_file() else int((folder / ELSEWHERE).is_file())
