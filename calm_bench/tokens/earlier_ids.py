"""Ids of finished tokens, which those of the same text take over: of a corpus that grew only what is new is encoded.

``parts.json`` in the folder of finished tokens tells which text stands where among their ids. A part that a mixture cut
is not listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from calm_bench.array_files import append_array
from calm_bench.atomic import write_json
from calm_bench.corpora import Split
from calm_bench.kept_elsewhere import ELSEWHERE
from calm_bench.tokens.stream import TokenStream
from calm_bench.tokens.tokenizer import TokensError

INDEX = "parts.json"
FORMAT = 1
IDS_AT_ONCE = 2**20


@dataclass(frozen=True)
class EarlierIds:
    """The ids of one part in finished tokens."""

    folder: Path
    """Of the tokens."""
    text: str
    """Digest of the text."""
    split: Split
    start: int
    """Position of the first of them in the split."""
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of text."""

    def as_dict(self) -> dict[str, Any]:
        """Its entry in ``parts.json``."""
        return {name: value for name, value in vars(self).items() if name != "folder"}

    def take_over(self, folder: Path, dtype: np.dtype[Any]) -> dict[str, Any] | None:
        """Write ``ids.bin`` and ``ends.bin`` into ``folder``, as whoever encodes the text would; None where the tokens
        are gone or damaged.
        """
        try:
            stream = _opened(self.folder, self.split)
            first = int(stream.document_of(self.start))
        except (FileNotFoundError, TokensError, IndexError):
            return None
        ends = stream.document_ends[first : first + self.documents] - self.start
        if len(ends) != self.documents or ends[-1] != self.tokens:
            return None
        with (folder / "ids.bin").open("wb") as ids_file, (folder / "ends.bin").open("wb") as ends_file:
            stop = self.start + self.tokens
            for begin in range(self.start, stop, IDS_AT_ONCE):
                append_array(ids_file, stream[begin : min(begin + IDS_AT_ONCE, stop)].astype(dtype))
            append_array(ends_file, ends)
        return {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}


def write_index(folder: Path, tokenizer: str, parts: Iterable[EarlierIds]) -> None:
    """List the parts of tokens in their folder; ``tokenizer`` is its digest."""
    listed = [part.as_dict() for part in parts]
    write_json(folder / INDEX, {"format": FORMAT, "tokenizer": tokenizer, "parts": listed})


def folders_of(tokenizer: str, folders: Iterable[Path]) -> tuple[Path, ...]:
    """Those of the folders of finished tokens that list ids of this tokenizer, by its digest."""
    return tuple(folder for folder in folders if _read(folder, tokenizer))


def find_ids(folders: tuple[Path, ...], tokenizer: str, text: str) -> EarlierIds | None:
    """The ids of a text, by its digest, in finished tokens."""
    return _known(folders, tokenizer).get(text) if folders else None


@lru_cache(maxsize=1)
def _known(folders: tuple[Path, ...], tokenizer: str) -> dict[str, EarlierIds]:
    """All that the folders list, of equal texts the first; read once in a process."""
    found: dict[str, EarlierIds] = {}
    for folder in reversed(folders):
        found |= _read(folder, tokenizer)
    return found


def _read(folder: Path, tokenizer: str) -> dict[str, EarlierIds]:
    """What a folder lists; nothing where it was written without, by another version, or with another tokenizer, or
    where its ids are kept elsewhere.
    """
    if (folder / ELSEWHERE).is_file():
        return {}
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if (index["format"], index["tokenizer"]) != (FORMAT, tokenizer):
            return {}
        return {part["text"]: EarlierIds(folder, **part) for part in index["parts"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@lru_cache(maxsize=1)
def _opened(folder: Path, split: Split) -> TokenStream:
    return TokenStream.open(folder, split)
