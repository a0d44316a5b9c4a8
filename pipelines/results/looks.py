"""One look per kind, K and head, in all pictures and on the whole report: a colour and a marker of the palette."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.results.entry import OTHER as OTHERS
from pipelines.results.entry import Entry

Key = tuple[str, int, str | None]
"""Kind, K, head."""

_CHUNK_SIZES = (1, 2, 4, 8, 16)
_VARIANTS = {
    "energy": 3,
    "diffusion": 4,
    "flow": 2,
    "shortcut": 5,
    "drifting": 1,
    "mean_flow": 4,
    "patch": 1,
    "multi_token": 5,
    "block_diffusion": 4,
}
"""Places of CALM's heads and of the other families; two that share one seldom meet in a study."""
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

    Colour says K; where the rows have one K and several kinds or heads it says these. With several of both, the marker
    says the kind or head.
    """
    keys = sorted({key_of(entry) for entry in entries}, key=_sort_key)
    chunked = [key for key in keys if key[0] not in ("token", OTHERS)]
    variants = {_variant(key) for key in chunked}
    heads = {key[2] for key in chunked if key[2]}
    by_variant = len({key[1] for key in chunked}) == 1 and len(variants) > 1
    looks = {}
    for key in keys:
        kind, chunk_size, head = key
        if kind == "token":
            looks[key] = Family("token", TOKEN, TOKEN)
            continue
        if kind == OTHERS:
            looks[key] = Family(kind, OTHER, OTHER)
            continue
        size = 1 + _CHUNK_SIZES.index(chunk_size) if chunk_size in _CHUNK_SIZES else OTHER
        own = _VARIANTS.get(_variant(key), OTHER)
        name = f"K={chunk_size}" if kind == "calm" else f"{kind} K={chunk_size}"
        name += f" {head}" if len(heads) > 1 and head else ""
        if by_variant:
            looks[key] = Family(name, own, own)
        else:
            looks[key] = Family(name, size, own if len(variants) > 1 else size)
    return looks


def _sort_key(key: Key) -> tuple[bool, int, bool, str, str]:
    kind, chunk_size, head = key
    return kind != "token", chunk_size, kind != "calm", kind, head or ""


def _variant(key: Key) -> str:
    """What sets rows of one K apart: CALM's head, else the kind."""
    kind, _, head = key
    return head or "" if kind == "calm" else kind
