"""An object store, or anything else that fsspec can write to, as an object store.

Only whole objects are written, read, listed and deleted, so every implementation of fsspec that can do that will do.
Credentials come from where the implementation looks for them (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, roles of a
machine, ``GOOGLE_APPLICATION_CREDENTIALS``, fsspec's own configuration), and so does the address of a server
(``AWS_ENDPOINT_URL``): none of it is part of a store's address, which is written into studies and leaderboards.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from calm_bench import first_answer as answering
from calm_bench.atomic import write_bytes
from calm_bench.first_answer import NoAnswer, first_answer
from calm_bench.kept_folders import make_folder
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.common.redact import redact
from pipelines.store.errors import StoreForbidden, StoreUnreachable

T = TypeVar("T")

BATCH = 64
"""Objects that are moved at once."""

PAUSES_S = (1.0, 4.0, 15.0)
"""Before each further try of a request that failed, after those that the implementation makes itself."""

_NETWORK = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3")

_MODIFIED = ("LastModified", "mtime", "updated", "last_modified", "created")
"""What implementations call the time of the last write."""


@dataclass(frozen=True)
class Found:
    """An object as a listing shows it."""

    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch, by the clock of the store, which may tell whole seconds only."""
    version: str = ""
    """By which contents of one size and one second differ, where the store tells it."""


class ObjectStore:
    """All objects below one address; keys are relative to it, with ``/`` between their parts.

    Args:
        url: as ``s3://bucket/path``, without credentials (:func:`pipelines.store.opening.open_store` sees to that).
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        # Connections do not travel; every process makes its own.
        return ObjectStore, (self.url,)

    def uri(self, key: str = "") -> str:
        """The address of an object, for people."""
        return f"{self.url}/{key}".rstrip("/")

    def key_of(self, uri: str) -> str:
        """The reverse of :meth:`uri`."""
        return uri.removeprefix(self.url).strip("/")

    def read(self, key: str, start: int = 0) -> bytes:
        """
        Args:
            start: the first byte that is wanted.

        Raises:
            FileNotFoundError: there is no such object.
        """
        content: bytes = self._ask("read", key, lambda: self._files.cat_file(self._path(key), start=start or None))
        return content

    def read_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The objects that exist among ``keys``, many at once."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), BATCH):
            paths = {self._path(key): key for key in keys[start : start + BATCH]}
            found |= self._ask("read", keys[start], functools.partial(self._read_batch, paths))
        return found

    def write(self, key: str, content: bytes) -> None:
        """Write an object, whole or not at all."""
        if self._is_local:
            self._ask("write", key, lambda: write_bytes(Path(self._path(key)), content))
        else:
            self._ask("write", key, lambda: self._files.pipe_file(self._path(key), content))

    def exists(self, key: str) -> bool:
        return bool(self.list_one(key))

    def list_one(self, key: str) -> dict[str, Found]:
        """As :meth:`list`, of one object; empty where it does not exist."""
        try:
            info = self._ask("look for", key, lambda: self._files.info(self._path(key)))
        except FileNotFoundError:
            return {}
        return {key: Found(int(info.get("size") or 0), _modified(info), _version(info))}

    def list(self, prefix: str) -> dict[str, Found]:
        """Every object whose key begins with the folder ``prefix``, as it is now."""
        try:
            listed = self._ask("list", prefix, lambda: self._find(prefix))
        except FileNotFoundError:
            return {}
        found = {}
        for path, info in listed.items():
            key = self._full(path).removeprefix(self._base).lstrip("/")
            # An object of just the prefix's name, the markers that consoles make for empty folders, and files that
            # are being written.
            is_whole = not (self._is_local and key.rpartition("/")[2].startswith("."))
            if key != prefix and not path.endswith("/") and is_whole:
                found[key] = Found(int(info.get("size") or 0), _modified(info), _version(info))
        return found

    def upload(self, pairs: Sequence[tuple[Path, str]]) -> None:
        """Copy files to keys, several at once."""
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            here, there = [str(path) for path, _ in batch], [self._path(key) for _, key in batch]
            if self._is_local:
                for path in there:
                    make_folder(Path(path).parent)
            self._ask("write", batch[0][1], functools.partial(self._files.put, here, there))

    def download(self, pairs: Sequence[tuple[str, Path]]) -> None:
        """Copy keys to files, several at once; makes their folders.

        Raises:
            FileNotFoundError: one of the objects does not exist.
        """
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            for _, path in batch:
                make_folder(path.parent)
            there, here = [self._path(key) for key, _ in batch], [str(path) for _, path in batch]
            self._ask("read", batch[0][0], functools.partial(self._files.get, there, here))

    def digest(self, key: str, block: int = 8 * 2**20) -> str:
        """SHA-256 of an object, in hex, read in blocks.

        Raises:
            FileNotFoundError: there is no such object.
        """

        def read() -> str:
            digest = hashlib.sha256()
            with self._files.open(self._path(key), "rb", cache_type="none") as file:
                while content := file.read(block):
                    digest.update(content)
            return digest.hexdigest()

        return self._ask("read", key, read)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that do not exist are no error."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._ask("delete", key, functools.partial(self._files.rm_file, self._path(key)))

    @property
    def _files(self) -> Any:
        """What fsspec has for the protocol."""
        return self._opened[0]

    @property
    def _base(self) -> str:
        """The address as the implementation writes paths."""
        return self._opened[1]

    @functools.cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec  # type: ignore[import-untyped]
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        try:
            fsspec.get_filesystem_class(self.protocol)
        except ValueError:
            known = sorted(fsspec.available_protocols())
            raise ConfigurationError(
                f"no store can be kept at {self.url}: there is no {self.protocol}://"
                f"{did_you_mean(self.protocol, known)}"
            ) from None
        except ImportError as error:
            extra = " (or calm-bench[s3])" if self.protocol in ("s3", "s3a") else ""
            raise ConfigurationError(f"a store at {self.protocol}:// needs another package{extra}: {error}") from None
        # Listings are not cached: another host may have written since.
        files, base = self._ask("open", "", lambda: url_to_fs(self.url, use_listings_cache=False))
        if not self._is_local:
            self._await_answer(files, str(base))
        return files, str(base).rstrip("/")

    def _await_answer(self, files: Any, base: str) -> None:
        """Wait until the server has answered once, be it with an error, which whoever asks next meets.

        Implementations ask a server that is silent again and again, for half an hour in all.

        Raises:
            StoreUnreachable: there was no answer in :data:`calm_bench.first_answer.FIRST_ANSWER_S`.
        """

        def ask() -> None:
            with suppress(Exception):
                files.exists(base)

        try:
            first_answer(ask)
        except NoAnswer:
            server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            of = f" of {redact(server)} (AWS_ENDPOINT_URL)" if server and self.protocol in ("s3", "s3a") else ""
            raise StoreUnreachable(
                f"{self.url}: no answer{of} in {answering.FIRST_ANSWER_S:.0f} s: see whether the server runs and its "
                "address is right, or name another store (--store)"
            ) from None

    @property
    def _is_local(self) -> bool:
        return self.protocol in ("file", "local")

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}".rstrip("/")

    def _full(self, path: str) -> str:
        """A path as :meth:`_path` writes it: implementations differ in a leading slash."""
        bare = path.lstrip("/").rstrip("/")
        return f"/{bare}" if self._base.startswith("/") else bare

    def _find(self, prefix: str) -> dict[str, dict[str, Any]]:
        self._files.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._files.find(self._path(prefix), detail=True)
        return found

    def _read_batch(self, paths: dict[str, str]) -> dict[str, bytes]:
        found = {}
        # As a list it is never taken for a pattern; a single path would come back without its name.
        for path, answer in self._files.cat([*paths], on_error="return").items():
            if isinstance(answer, bytes):
                found[paths[self._full(path)]] = answer
            elif not isinstance(answer, FileNotFoundError):
                raise answer
        return found

    def _ask(self, what: str, key: str, request: Callable[[], T]) -> T:
        """Do ``request``, which bears repeating, again after a failure that may pass; else an error of this module."""
        for pause in (*PAUSES_S, None):
            try:
                return request()
            except ConfigurationError:
                raise
            except FileNotFoundError as error:
                if what != "write":
                    raise FileNotFoundError(f"{self.uri(key)} does not exist") from None
                raise StoreUnreachable(
                    f"cannot write {self.uri(key)}: {_words(error)}; the bucket, or the folder's parent, must exist"
                ) from None
            except Exception as error:
                if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
                    raise StoreForbidden(
                        f"cannot {what} {self.uri(key)}: {_words(error)}; credentials come from the environment, as "
                        "for other programs (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of "
                        "this machine)"
                    ) from None
                if pause is None or not _may_pass(error):
                    raise StoreUnreachable(f"cannot {what} {self.uri(key)}: {_words(error)}") from None
                time.sleep(pause)
        raise AssertionError("the last try has returned or raised")


def _may_pass(error: Exception) -> bool:
    # Network libraries have families of errors of their own.
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK


def _words(error: BaseException) -> str:
    return redact(f"{type(error).__name__}: {error}".strip())


def _version(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in ("ETag", "etag", "md5Hash") if info.get(name)), "")


def _modified(info: dict[str, Any]) -> float:
    value = next((info[name] for name in _MODIFIED if info.get(name) is not None), None)
    match value:
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        case str():
            return datetime.fromisoformat(value).timestamp()
        case int() | float():
            return float(value)
    raise StoreUnreachable("this kind of store does not tell when an object was written: heartbeats need it")
