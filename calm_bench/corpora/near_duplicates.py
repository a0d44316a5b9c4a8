"""Near duplicates by MinHash: signatures of documents, and which documents of many are like an earlier one.

Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, section 3.4. The signatures are those of ``datasketch``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.word_runs import word_runs

RUN_WORDS = 5
PERMUTATIONS = 128
COMPARED_AT_ONCE = 2**16

Signatures = npt.NDArray[np.uint32]


def signature(text: str) -> Signatures:
    """The MinHash of a text's runs of ``RUN_WORDS`` words, ``[PERMUTATIONS]``; the largest values where it has none.

    Raises:
        CorpusError: the library is not installed.
    """
    found = _min_hash().copy()
    # The scheme takes hashes of 32 bits.
    shingles = np.unique(word_runs(text, RUN_WORDS) >> np.uint64(32))
    if len(shingles):
        found.update_batch(shingles.tolist())
    values: Signatures = found.hashvalues
    return values


@cache
def _min_hash() -> Any:
    """The MinHash of no text. Permutations are drawn once in a process: that takes as long as a text of 3 kB."""
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise CorpusError(
            "corpus.quality.duplicates=near needs the package datasketch: pip install 'calm-bench[dedup]'"
        ) from error
    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")


def bands_for(similarity: float) -> int:
    """The number of bands, a divisor of ``PERMUTATIONS``, such that two documents of this similarity share one of
    them with 95 % probability or more: 1 - (1 - s^r)^b with r values in each of b bands; the fewest that do.
    """
    bands = 1
    while bands < PERMUTATIONS and 1 - (1 - similarity ** (PERMUTATIONS // bands)) ** bands < 0.95:
        bands *= 2
    return bands


def earlier_likes(signatures: Signatures, similarity: float) -> npt.NDArray[np.int64]:
    """For each document ``[D]`` an earlier one that is like it, by its number; -1 where there is none.

    A document is compared with the first of those that share a band with it; they are alike where the part of equal
    values in their signatures ``[D, PERMUTATIONS]``, an estimate of the similarity, is ``similarity`` or more.
    """
    count = len(signatures)
    found = np.full(count, -1, np.int64)
    # A text without runs is like every other without: too short to tell.
    known = np.flatnonzero((signatures != np.iinfo(np.uint32).max).any(axis=1))
    bands = bands_for(similarity)
    width = PERMUTATIONS // bands
    for band in range(bands):
        keys = np.ascontiguousarray(signatures[known, band * width : (band + 1) * width])
        rows = keys.view(np.dtype((np.void, keys.dtype.itemsize * width))).ravel()
        _, first, group = np.unique(rows, return_index=True, return_inverse=True)
        like = known[first[group.ravel()]]
        candidates = np.flatnonzero((like < known) & (found[known] < 0))
        for begin in range(0, len(candidates), COMPARED_AT_ONCE):
            some = candidates[begin : begin + COMPARED_AT_ONCE]
            equal = (signatures[known[some]] == signatures[like[some]]).mean(axis=1)
            alike = some[equal >= similarity]
            found[known[alike]] = like[alike]
    return found
