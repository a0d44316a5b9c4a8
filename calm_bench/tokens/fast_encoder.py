"""Documents to ids by ``tokenizers``, the library below transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from calm_bench.tokens.tokenizer import with_ends


class FastEncoder:
    """A tokenizer of the library ``tokenizers``: nothing is added to a text, and nothing cut off.

    Faster than the same one through transformers for want of offsets and masks, and without the import of transformers
    and torch, which takes seconds and some 180 MB in every process.
    """

    def __init__(self, description: str, eos_id: int) -> None:
        """Args: ``description``, what a ``tokenizer.json`` holds."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(description)
        # Settings of whoever saved it. The text "</s>" in a document is text, not an end.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._eos_id = eos_id

    @classmethod
    def load(cls, folder: Path, eos_id: int) -> Self:
        """The one that transformers saved in ``folder``."""
        return cls((folder / "tokenizer.json").read_text("utf-8"), eos_id)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """As :meth:`calm_bench.tokens.tokenizer.Tokenizer.encode_documents`."""
        return with_ends(self.encode_batch(texts), self._eos_id)
