"""Files of a folder that are kept elsewhere, brought into it when they are read."""

from __future__ import annotations

import secrets
from pathlib import Path

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.remote_file import ask, file_system
from calm_bench.fingerprint import file_digest
from calm_bench.kept_elsewhere import KeptFile, NotThere
from calm_bench.kept_folders import make_folder

ATTEMPTS = 3
"""At fetching a file that is not what was published."""


def bring_file(folder: Path, name: str, kept: KeptFile) -> Path:
    """The file ``name`` of ``folder``, fetched and compared with its hash unless it is there already.

    Raises:
        NotThere: it cannot be fetched.
        CorpusError: it is not what was published.
    """
    path = folder / name
    for _ in range(ATTEMPTS):
        if path.is_file():
            return path
        arriving = _fetch(path, kept.url)
        try:
            if kept.sha256 is None or file_digest(arriving) == kept.sha256:
                arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)
    if path.is_file():
        return path
    raise CorpusError(f"{kept.url} is damaged: expected sha256 {kept.sha256}; write it again")


def fetch_file(folder: Path, name: str, url: str) -> None:
    """Let ``folder`` have the file ``name``, for whoever compares it with a hash of its own.

    Raises:
        NotThere: it cannot be fetched.
    """
    path = folder / name
    if path.is_file():
        return
    arriving = _fetch(path, url)
    try:
        arriving.replace(path)
    finally:
        arriving.unlink(missing_ok=True)


def _fetch(path: Path, url: str) -> Path:
    """What is at ``url``, whole, in a file beside ``path``."""
    arriving = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    make_folder(path.parent)
    try:
        files, place = file_system(url)
        ask(url, lambda: files.get_file(place, str(arriving)))
    except BaseException as error:
        arriving.unlink(missing_ok=True)
        if isinstance(error, CorpusError):
            raise NotThere(f"what is kept elsewhere of {path.parent} cannot be brought: {error}") from error
        raise
    return arriving
