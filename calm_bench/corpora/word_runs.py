"""Runs of words as numbers: what two texts have in common without regard to case, punctuation and spaces."""

from __future__ import annotations

import re
import zlib

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
MIXER = np.uint64(0xFF51AFD7ED558CCD)

Hashes = npt.NDArray[np.uint64]


def word_runs(text: str, length: int) -> Hashes:
    """A 64-bit hash of every ``length`` words in a row, in lower case; the same on every machine.

    A text of fewer words gives none.
    """
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in WORD.findall(text.lower())]
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    each = np.array(words, np.uint64)
    runs = np.zeros(count, np.uint64)
    # Overflow is the arithmetic that is meant: polynomials modulo 2^64.
    for offset in range(length):
        runs = runs * MULTIPLIER + each[offset : offset + count]
    runs ^= runs >> np.uint64(32)
    return runs * MIXER
