"""The files of a folder at HTTP, which has no listing but the links of its page and of the pages below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.file_source import KINDS_IN_WORDS
from calm_bench.corpora.remote_file import ask, file_system

MOST_DEEP = 32
"""Folders within folders; more are one that links to itself, which systems follow some 40 times."""
PAGES = (None, "text/html", "application/xhtml+xml")
"""What servers call a page; some call it nothing."""
IN_NAMES = "/:@!$&'()*+,;=~"
"""What may stand in a path as it is, beside letters, digits, ``-``, ``.`` and ``_``."""

_ADDRESS = re.compile(r"https?://[-a-zA-Z0-9@:%_+.~#?&/=]+")
"""An address that a page shows as text."""
_OTHER_PROTOCOL = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NOT_RELATIVE = re.compile(r"https?://|[/?#]", re.IGNORECASE)


def files_below(source: str) -> list[str]:
    """Names of the files of a folder and of all folders below it, relative to it, each once, in order.

    Hidden ones are left out, as are links that lead out of the folder, or that sort its columns (``?C=N``). What is
    linked as a folder and is no page is a file by its answer, whose name ends in ``/``.

    Raises:
        CorpusError: a page does not answer, or is forbidden; so what it links is not known.
    """
    found: set[str] = set()
    looked_at: set[str] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        if folder in looked_at:
            continue
        looked_at.add(folder)
        if folder.count("/") > MOST_DEEP:
            raise CorpusError(
                f"corpus.source={source} links folders within folders more than {MOST_DEEP} deep, such as "
                f"{address_below(source, folder)}: does one link to itself? Name a folder below it"
            )
        page = _read(source, folder)
        if page is None and folder:
            found.add(folder)
        for name in _linked(source, folder, page or ""):
            (folders.append if name.endswith("/") else found.add)(name)
    return sorted(found)


def address_below(source: str, name: str) -> str:
    """The address of what has this name in a folder at HTTP."""
    return f"{source.rstrip('/')}/{quote(name, IN_NAMES)}"


def _read(source: str, folder: str) -> str | None:
    """The page of a folder; None where the server calls it something else."""
    address = address_below(source, folder)
    try:
        return ask(address, lambda: _page(address))
    except CorpusError as error:
        as_file = "" if folder else f". If it is a file: the names of those that are read end in {KINDS_IN_WORDS}"
        raise CorpusError(
            f"{error}. A folder at HTTP is what its page and those of its sub-folders link, and nothing of it is left "
            f"out unsaid: see whether the server gives this page, or name in place of corpus.source={source} folders "
            f"or files that it gives{as_file}"
        ) from error


def _page(address: str) -> str | None:
    files, path = file_system(address)
    # What is no page may be of any size.
    if files.info(path).get("mimetype") not in PAGES:
        return None
    content: bytes = files.cat_file(path)
    return content.decode("utf-8", "replace")


def _linked(source: str, folder: str, page: str) -> Iterator[str]:
    """Names of what the page of a folder links that is no hidden part of ``source``; those of folders end in ``/``."""
    address = address_below(source, folder)
    parser = _Links()
    try:
        parser.feed(page)
        parser.close()
    except AssertionError as error:
        # So the library says that a declaration is none.
        raise CorpusError(f"cannot read the links of {address}: {error}") from error
    for link in parser.links:
        name = _name_below(source, address, link)
        if name and not any(part.startswith(".") for part in name.split("/")):
            yield name


class _Links(HTMLParser):
    """The links of a page, and the addresses that it shows as text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value.strip() for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.links += _ADDRESS.findall(data)


def _name_below(source: str, page: str, link: str) -> str | None:
    """The name of what ``link`` leads to relative to ``source``; None where it leads elsewhere."""
    if _OTHER_PROTOCOL.match(link):
        return None
    try:
        # Names may have a colon, and are no protocol then.
        address = urljoin(page, link if _NOT_RELATIVE.match(link) else f"./{link}")
        place, below = _place(f"{source.rstrip('/')}/"), _place(address)
    except ValueError:
        return None
    is_same_query = address.count("?") == source.count("?")
    return below.removeprefix(place) if is_same_query and below.startswith(place) else None


def _place(address: str) -> str:
    """An address in one form, however it is quoted, without its protocol: servers link as ``http`` and ``https``."""
    parts = urlsplit(address)
    return unquote(f"{parts.netloc.lower()}{parts.path}{'?' * bool(parts.query)}{parts.query}")
