"""Text to token ids and back: the contract of a tokenizer, and the description that its folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calm_bench.errors import UsageError
from calm_bench.kept_folders import make_folder

DESCRIPTION = "calm_tokenizer.json"
"""The file of a tokenizer folder that says which class reads the rest."""


class TokensError(UsageError, ValueError):
    """Tokens that cannot be made, read or served; the message says what to do."""


class TokenizerError(TokensError):
    """A tokenizer that cannot be built, or that this project cannot use."""


class Tokenizer(Protocol):
    """Maps text to ids in ``[0, vocab_size)``. Nothing is added to a text: no BOS, and EOS only by the caller."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, so the number of rows of an embedding."""
        ...

    @property
    def eos_id(self) -> int:
        """The id written once after each document."""
        ...

    @property
    def digest(self) -> str:
        """Identity of the mapping: tokenizers with equal digests give equal ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; the name of a special token inside it is ordinary text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of all ``texts`` one after the other, each with an EOS behind it, and how many each has with it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens; bytes that are no UTF-8 become U+FFFD."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write everything :func:`load_tokenizer` needs into ``folder``."""
        ...


def with_ends(ids: Sequence[Sequence[int]], eos_id: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Lists of ids as :meth:`Tokenizer.encode_documents` gives them."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids)) + 1
    end = (eos_id,)
    every = chain.from_iterable(part for text in ids for part in (text, end))
    return np.fromiter(every, np.int64, int(lengths.sum())), lengths


def write_description(folder: str | Path, tokenizer: Tokenizer, kind: str) -> None:
    """Write the description of ``tokenizer``, making ``folder``."""
    folder = Path(folder)
    make_folder(folder)
    description = {
        "kind": kind,
        "name": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "digest": tokenizer.digest,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
