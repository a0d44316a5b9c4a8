"""From what ``--store`` says to a store."""

from __future__ import annotations

import re
from pathlib import Path

from calm_bench.overrides import ConfigurationError
from pipelines.store.place import opened_store
from pipelines.store.store import Store

_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)")
_READ_ONLY = ("http", "https", "data", "zip", "tar", "libarchive", "github", "git")


def open_store(where: str | Path | None = None) -> Store:
    """The store at ``where``: a folder, or an address such as ``s3://bucket/path``; unset means ``runs``.

    Nothing is made or connected to yet.

    Raises:
        ConfigurationError: it is empty, carries credentials, or is of a kind that cannot hold a store.
    """
    if where is None:
        from pipelines.study.config import Execution

        where = Execution().store
    store = _opened(where)
    opened_store(store)
    return store


def _opened(where: str | Path) -> Store:
    text = str(where)
    if not text.strip():
        raise ConfigurationError("--store is empty: name a folder, such as runs, or leave it out")
    if "::" in text and "://" in text:
        raise ConfigurationError(f"{text.partition('::')[0]}::... chains two addresses: a store has one")
    found = _URL.fullmatch(text)
    if found is None:
        return Store(Path(where).expanduser())
    protocol, rest = found["protocol"].lower(), found["rest"]
    _refuse_credentials(protocol, rest)
    if any(sign in rest for sign in "*[]"):
        raise ConfigurationError(
            f"{protocol}://{rest}: *, [ and ] are patterns where objects are read: name it otherwise"
        )
    url = f"{protocol}://{rest}"
    if protocol in _READ_ONLY:
        raise ConfigurationError(f"{url} cannot be written to: a store needs s3://, gs://, file:// or the like")
    if protocol in ("file", "local"):
        # One folder, one cache, however it is written.
        url = f"file://{Path('/' + rest.lstrip('/'))}"
    from pipelines.store.object_backend import object_backend

    return Store(object_backend(url))


def _refuse_credentials(protocol: str, rest: str) -> None:
    # A password may hold a slash, so not only the part before the first one counts; a colon may stand before a port.
    if "@" in rest or "?" in rest or re.match(r"[^/]*:(?!\d+(/|$))", rest):
        raise ConfigurationError(
            f"the address of a store ({protocol}://...) is written into studies and leaderboards, so it must not hold "
            "user, password or options: credentials and servers come from the environment (AWS_ACCESS_KEY_ID, "
            "AWS_PROFILE, AWS_ENDPOINT_URL, ...) or from fsspec's configuration (~/.config/fsspec)"
        )
