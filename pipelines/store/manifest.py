"""Files that are in an object store all or not at all.

Objects are uploaded under a name that is used once; a record, which lists them with sizes and hashes, is written last.
Without its record a bundle is not there, however much of it is; two processes that upload the same thing cannot mix
their files, and whichever record stands in the end describes one of the two.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calm_bench.fingerprint import file_digest
from calm_bench.parallel_files import map_files
from pipelines.store.errors import StoreUnreachable
from pipelines.store.names import stays_inside
from pipelines.store.object_store import ObjectStore


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle."""

    bytes: int
    sha256: str
    object: str
    """Where it is, below the bundle's own prefix."""


@dataclass(frozen=True)
class Manifest:
    """What a record says."""

    files: Mapping[str, FileEntry]
    """By relative path."""
    about: Mapping[str, Any]
    """JSON: what can be known of the bundle without fetching it."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(piece.bytes for piece in self.files.values())

    def to_json(self) -> bytes:
        files = {name: asdict(piece) for name, piece in self.files.items()}
        return (json.dumps({"files": files, "about": dict(self.about)}, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """
        Raises:
            ValueError: it is no record, or one that names files outside its folder.
        """
        try:
            document = json.loads(content)
            files = {
                str(name): FileEntry(int(entry["bytes"]), str(entry["sha256"]), str(entry["object"]))
                for name, entry in document["files"].items()
            }
            about = dict(document["about"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record of files ({type(error).__name__}: {error})") from None
        if not all(stays_inside(name) and stays_inside(piece.object) for name, piece in files.items()):
            raise ValueError("it names files outside its folder")
        return cls(files, about)


def read(objects: ObjectStore, record: str) -> Manifest | None:
    """The bundle whose record has the key ``record``; None where there is none.

    Raises:
        ValueError: there is something else.
    """
    try:
        return Manifest.from_json(objects.read(record))
    except FileNotFoundError:
        return None


def send(
    objects: ObjectStore,
    record: str,
    prefix: str,
    folder: Path,
    names: Iterable[str],
    about: Mapping[str, Any],
    before: Manifest | None = None,
) -> Manifest:
    """Upload ``names`` of ``folder`` below ``prefix``, then write the record.

    Args:
        before: an earlier bundle below the same prefix: what has not changed since is not uploaded again.

    Raises:
        StoreUnreachable: some objects did not arrive.
    """
    upload = uuid.uuid4().hex
    known = {piece.sha256: piece.object for piece in before.files.values()} if before else {}
    files: dict[str, FileEntry] = {}
    fresh: list[tuple[Path, str]] = []
    listed = list(names)
    digests = map_files(file_digest, [folder / name for name in listed])
    for name, digest in zip(listed, digests, strict=True):
        path = folder / name
        files[name] = FileEntry(path.stat().st_size, digest, known.get(digest, f"{upload}/{name}"))
        if digest not in known:
            fresh.append((path, f"{prefix}/{upload}/{name}"))
    objects.upload(fresh)
    arrived = objects.list(f"{prefix}/{upload}") if fresh else {}
    for path, key in fresh:
        if key not in arrived or arrived[key].size != path.stat().st_size:
            raise StoreUnreachable(f"{objects.uri(key)} did not arrive whole")
    bundle = Manifest(files, about)
    objects.write(record, bundle.to_json())
    return bundle


def fetch(
    objects: ObjectStore, prefix: str, bundle: Manifest, into: Path, names: Iterable[str] | None = None
) -> list[str]:
    """Download files of ``bundle`` and compare their hashes; what is wrong with them, one phrase each.

    A file that is not what it was is not left behind.
    """
    chosen = list(bundle.files if names is None else names)
    files = [(f"{prefix}/{bundle.files[name].object}", into / name, bundle.files[name]) for name in chosen]
    problems = fetch_files(objects, files)
    return [f"{name} {problem}" for name, problem in zip(chosen, problems, strict=True) if problem]


def fetch_files(objects: ObjectStore, files: Sequence[tuple[str, Path, FileEntry]]) -> list[str | None]:
    """Download files, of several bundles perhaps, and compare their hashes.

    Args:
        files: key, where it goes, and what it was when it was uploaded.

    Returns:
        What is wrong with each, which is then not left behind; None where it is what it was.
    """
    pairs = [(key, path) for key, path, _ in files]
    try:
        objects.download(pairs)
    except FileNotFoundError:
        # One by one, to say which.
        for pair in pairs:
            try:
                objects.download([pair])
            except FileNotFoundError:
                pair[1].unlink(missing_ok=True)
    problems = map_files(lambda file: _difference(file[1], file[2]), files)
    for (_, path), problem in zip(pairs, problems, strict=True):
        if problem:
            path.unlink(missing_ok=True)
    return problems


def _difference(path: Path, piece: FileEntry) -> str | None:
    if not path.is_file():
        return "is missing"
    is_whole = path.stat().st_size == piece.bytes and file_digest(path) == piece.sha256
    return None if is_whole else "has other content than was published"


def check(objects: ObjectStore, prefix: str, bundle: Manifest) -> list[str]:
    """As :func:`fetch`, but keeps nothing: reads every object and compares."""
    problems = []
    for name, piece in bundle.files.items():
        try:
            if objects.digest(f"{prefix}/{piece.object}") != piece.sha256:
                problems.append(f"{name} has other content than was published")
        except FileNotFoundError:
            problems.append(f"{name} is missing")
    return problems
