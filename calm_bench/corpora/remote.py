"""Documents from files at an address: ``https://``, ``s3://``, ``gs://``, ``hf://`` and whatever fsspec reads."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.file_source import KINDS, KINDS_IN_WORDS, FilesFound, FileSource, reader_of
from calm_bench.corpora.http_folder import address_below, files_below
from calm_bench.corpora.input_file import kind_of
from calm_bench.corpora.input_parts import PART_BYTES, Span
from calm_bench.corpora.remote_file import RemoteFile, described, remote_file
from calm_bench.corpora.remote_folder import infos_below

AT_ONCE = 16
"""Requests for the heads of files of a folder at HTTP, whose listing tells no more than names."""
HTTP = ("http", "https")
_SECRET = re.compile(r"password|passwd|pwd|token|secret|key|signature|credential|^sig$", re.IGNORECASE)

_PASSWORD = re.compile(r"://[^/\s@:]+:(?!\d+(?:/|$))[^@]+@")
"""Also with a slash in it, as secret keys of object stores may have one; no port."""


class RemoteFiles(FileSource):
    """Files in the order of their names; hidden ones are not looked at. Nothing is kept of them on this machine.

    A folder at HTTP is what its page links, and the pages of the folders that it links below it.
    """

    def __init__(self) -> None:
        super().__init__(RemoteFinder())

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """The address, and what the place tells of each file: kind, size, and version, such as an ETag.

        The size of parts where a plain text has several.
        """
        digest = hashlib.sha256()
        cut: dict[str, int] = {}
        for file in find_remote(config.source).files:
            digest.update(f"{kind_of(file.name)} {file.name} {file.size} {file.version}\n".encode())
            if kind_of(file.name) == ".txt" and file.size > PART_BYTES:
                cut |= {"text_part_bytes": PART_BYTES}
            # Whether a .csv begins with a blank line would be a request for each.
            cut |= reader_of(file.name)
        return {"url": config.source, "versions": digest.hexdigest(), **cut}


class RemoteFinder:
    """Finds files at an address."""

    def find(self, config: Corpus) -> FilesFound[RemoteFile]:
        return find_remote(config.source)

    def open(self, config: Corpus, span: Span) -> RemoteFile:
        source = config.source
        url = source if _last_name(source) == span.name and kind_of(span.name) in KINDS else _join(source, span.name)
        return remote_file(url, span.name)

    def digest(self, config: Corpus, span: Span) -> str:
        reader = reader_of(span.name)
        return f"{config.source} {span.version}{f' {reader}' if reader else ''}"


def find_remote(source: str) -> FilesFound[RemoteFile]:
    """The file or the files of the folder at the address ``source``.

    Raises:
        CorpusError: there are none, the place does not answer, or a password stands in the address.
    """
    _check(source)
    name = _last_name(source)
    if kind_of(name) in KINDS:
        return FilesFound([remote_file(source, name)])
    is_http = protocol_of(source) in HTTP
    found = {name: {} for name in files_below(source)} if is_http else infos_below(source)
    names = {name: info for name, info in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    wanted = sorted(name for name in names if kind_of(name) in KINDS)
    if not wanted:
        raise CorpusError(f"corpus.source={source} has no file whose name ends in {KINDS_IN_WORDS}")
    if is_http:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            listed = list(pool.map(lambda name: remote_file(_join(source, name), name), wanted))
    else:
        listed = [described(_join(source, name), name, names[name]) for name in wanted]
    return FilesFound(listed, sorted(set(names) - set(wanted)))


def protocol_of(source: str) -> str:
    """What stands before ``://``."""
    return source.partition("://")[0]


def _check(source: str) -> None:
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise CorpusError(f"corpus.source={source} is no address: {error}") from None
    protocol = protocol_of(source)
    if protocol in ("file", "local"):
        raise CorpusError(f"corpus.source={source}: name the path itself, without {protocol}://")
    named = [pair.partition("=")[0] for pair in parts.query.split("&")]
    has_user = bool(_PASSWORD.search(source)) or (protocol in HTTP and "@" in parts.netloc)
    if has_user or any(map(_SECRET.search, named)):
        raise CorpusError(
            f"corpus.source={protocol}://... holds a password or a signature, and sources are shown in leaderboards: "
            f"take it out, and give it to fsspec (FSSPEC_{protocol.upper()}) or to the place's own client "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN)"
        )


def _last_name(source: str) -> str:
    return unquote(source.partition("?")[0] if protocol_of(source) in HTTP else source).rstrip("/").rpartition("/")[2]


def _join(source: str, name: str) -> str:
    """The address of a file of a folder. Only those of HTTP are quoted."""
    return address_below(source, name) if protocol_of(source) in HTTP else f"{source.rstrip('/')}/{name}"


SOURCE = RemoteFiles()
