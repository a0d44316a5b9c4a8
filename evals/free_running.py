"""Repetition and diversity of text that a model wrote, beside the same of held-out text of equal length.

A model may score well token by token and still write in circles, or the same text after every prompt. Numbers of
n-grams depend on how long a text is and how many there are, so each stands beside that of as much held-out text: the
beginnings are the same, and so are the lengths.

- ``distinct_n``: the share of the n-grams of all texts together that differ (Li et al. 2016, arXiv 1510.03055).
- ``repeated_n``: the share of a text's n-grams that it holds already, averaged over texts (Welleck et al. 2020, arXiv
  1908.04319, section 6: seq-rep-n).
- ``entropy_n``: bits of the distribution of n-grams of all texts together (Zhang et al. 2018, arXiv 1809.05972).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LENGTHS = (1, 2, 3, 4)
FEWEST_TEXTS = 3
"""With fewer an error over texts cannot be told."""

Text = Sequence[int]
"""Token ids."""


@dataclass(frozen=True)
class Figure:
    """A number with one standard error over texts; None where there are too few."""

    value: float
    standard_error: float | None


def free_running_statistics(texts: Sequence[Text]) -> dict[str, Figure]:
    """``distinct_n``, ``repeated_n`` and ``entropy_n`` for n = 1 to 4, of those lengths of which there are n-grams.

    Errors are over texts, by leaving out one at a time.
    """
    found: dict[str, Figure] = {}
    for length in LENGTHS:
        counts = [Counter(_ngrams(text, length)) for text in texts]
        if not any(counts):
            continue
        for name, measure in (("distinct", _distinct), ("repeated", _repeated), ("entropy", _entropy)):
            found[f"{name}_{length}"] = _with_error(measure, [count for count in counts if count])
    return found


def _ngrams(text: Text, length: int) -> list[tuple[int, ...]]:
    return [tuple(text[start : start + length]) for start in range(len(text) - length + 1)]


Counts = Sequence[Counter[tuple[int, ...]]]
"""N-grams by text."""


def _distinct(counts: Counts) -> float:
    together = _together(counts)
    return len(together) / together.total()


def _repeated(counts: Counts) -> float:
    return sum(1.0 - len(count) / count.total() for count in counts) / len(counts)


def _entropy(counts: Counts) -> float:
    together = _together(counts)
    total = together.total()
    return -sum(count / total * math.log2(count / total) for count in together.values())


def _together(counts: Counts) -> Counter[tuple[int, ...]]:
    together: Counter[tuple[int, ...]] = Counter()
    for count in counts:
        together.update(count)
    return together


def _with_error(measure: Callable[[Counts], float], counts: Counts) -> Figure:
    """The measure with its jackknife error."""
    value, number = measure(counts), len(counts)
    if number < FEWEST_TEXTS:
        return Figure(value, None)
    without = [measure([*counts[:index], *counts[index + 1 :]]) for index in range(number)]
    mean = sum(without) / number
    return Figure(value, math.sqrt((number - 1) / number * sum((one - mean) ** 2 for one in without)))
