"""One look per kind, K and head, in all pictures and on the whole report: a colour and a marker of the palette."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.results.entry import Entry

Key = tuple[str, int, str | None]
"""Kind, K, head."""

_CHUNK_SIZES = (1, 2, 4, 8, 16)
_HEADS = {"energy": 3, "diffusion": 4, "flow": 2, "shortcut": 5}
TOKEN = 0
OTHER = 6


@dataclass(frozen=True)
class Family:
    """Rows that look alike. ``colour`` and ``marker`` are places in the palette; 0 is the token model's."""

    name: str
    colour: int
    marker: int


def key_of(entry: Entry) -> Key:
    return (entry.kind, 1 if entry.kind == "token" else entry.chunk_size, entry.head)


def looks_of(entries: Iterable[Entry]) -> dict[Key, Family]:
    """The look of every kind, K and head, the token model first, then by K.

    Colour says K; where the rows have one K and several heads it says the head. With
    several of both, the marker says the head.
    """
    keys = sorted({key_of(entry) for entry in entries}, key=lambda key: (key[0] != "token", key[1], key[2] or ""))
    chunked = [key for key in keys if key[0] != "token"]
    heads = sorted({key[2] or "" for key in chunked})
    by_head = len({key[1] for key in chunked}) == 1 and len(heads) > 1
    looks = {}
    for key in keys:
        kind, chunk_size, head = key
        if kind == "token":
            looks[key] = Family("token", TOKEN, TOKEN)
            continue
        size = 1 + _CHUNK_SIZES.index(chunk_size) if chunk_size in _CHUNK_SIZES else OTHER
        own = _HEADS.get(head or "", OTHER)
        name = f"K={chunk_size}" + (f" {head}" if len(heads) > 1 and head else "")
        if by_head:
            looks[key] = Family(name, own, own)
        else:
            looks[key] = Family(name, size, own if len(heads) > 1 else size)
    return looks
