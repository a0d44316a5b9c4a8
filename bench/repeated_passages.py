"""How much of a corpus's held-out text stands in its training text word by word.

    python bench/repeated_passages.py [KEY=VALUE ...]     # of corpus.*, such as source=text.jsonl

A held-out character counts as repeated at length n if some n characters around it, inside its document, occur in one
document of the training text. Chance makes short passages equal; at 64 characters and more they are copies.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from calm_bench.config import Corpus
from calm_bench.corpora import read_documents, write_corpus
from calm_bench.overrides import parse_assignment

LENGTHS = (32, 64, 128, 256)


def passages(text: str, length: int) -> Iterator[str]:
    """All stretches of ``length`` characters, in order."""
    return (text[begin : begin + length] for begin in range(len(text) - length + 1))


def known_passages(train: list[str], length: int) -> set[int]:
    """Hashes of all stretches of ``length`` characters of the training text."""
    return {hash(passage) for text in train for passage in passages(text, length)}


def covered(text: str, known: set[int], length: int) -> np.ndarray:
    """Which characters of ``text`` lie in a stretch of ``length`` characters that is known, ``[C]``."""
    found = np.zeros(len(text), dtype=bool)
    for begin, passage in enumerate(passages(text, length)):
        if hash(passage) in known:
            found[begin : begin + length] = True
    return found


def repeated(train: list[str], held_out: list[str], length: int) -> tuple[int, int, int]:
    """Repeated characters, characters, and documents that hold a repeated passage."""
    known = known_passages(train, length)
    masks = [covered(text, known, length) for text in held_out]
    return sum(int(mask.sum()) for mask in masks), sum(map(len, held_out)), sum(bool(mask.any()) for mask in masks)


def main() -> None:
    """Print a table, a line a length."""
    settings = dict(parse_assignment(text) for text in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Corpus.model_validate({"source": "stdlib", **settings}), Path(folder))
        texts = {split: list(read_documents(Path(folder), split)) for split in ("train", "validation", "test")}
    print("characters  of validation  of test  test documents with any")
    for length in LENGTHS:
        shares = []
        for split in ("validation", "test"):
            characters, whole, documents = repeated(texts["train"], texts[split], length)
            shares.append(f"{100 * characters / max(1, whole):.2f} %")
        print(f"{length:10}  {shares[0]:>13}  {shares[1]:>7}  {documents} of {len(texts['test'])}")


if __name__ == "__main__":
    main()
