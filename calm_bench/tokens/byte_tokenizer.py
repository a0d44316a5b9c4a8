"""The tokenizer of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.fingerprint import identity
from calm_bench.tokens.tokenizer import write_description


class ByteTokenizer:
    """The 256 bytes of UTF-8 as ids 0-255, and EOS as 256."""

    name = "bytes"
    vocab_size = 257
    eos_id = 256
    digest = identity({"tokenizer": "bytes", "eos_id": 256})

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1
        # A byte for each EOS to overwrite.
        ids = np.frombuffer(b"\xff".join([*encoded, b""]), np.uint8).astype(np.uint16)
        ids[np.cumsum(lengths) - 1] = self.eos_id
        return ids, lengths

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(token) for token in ids if token != self.eos_id).decode(errors="replace")

    def save(self, folder: str | Path) -> None:
        write_description(folder, self, "bytes")

    @classmethod
    def load(cls, folder: str | Path) -> ByteTokenizer:
        return cls()
