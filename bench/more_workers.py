"""How many times as fast text becomes tokens with more workers, beside the tokenizer's own library in processes.

    python -m bench.more_workers [--megabytes 128] [--workers 2] [--turns 5]

Workers of parts have started before a turn begins. In each turn the same parts are made by one of them and by
``--workers``, and the same texts encoded by the library in one process and in as many, at once after each other: a
machine whose speed changes within minutes shows itself in the columns, not in the ratios of a turn. Text and tokenizer
are those of :mod:`bench.text`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import machine
from bench.text import encode_in_processes, save_tokenizer, write_text
from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import SPLITS, read_documents, write_corpus
from calm_bench.tokens.token_part import TokenizerFound, TokenPart, make_tokenizer, token_parts, write_token_part
from pipelines.execution.ray_instance import RayInstance
from pipelines.execution.ray_parts import PartWorkers
from pipelines.study.config import Execution


def make_parts(tokenizer: TokenizerFound, parts: list[TokenPart], scratch: Path, workers: int) -> None:
    """The ids of ``parts`` by so many workers, into a new folder of ``scratch``; in a process that Ray knows."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        work = partial(write_token_part, tokenizer, Path(folder), ())
        for _ in PartWorkers.of(Execution(max_parallel=workers), on_one_node=True)(work, parts):
            pass


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path, texts: list[str], megabytes: float, workers: int, turns: int) -> None:
    """Print a line for each turn, and the medians."""
    size = write_text(folder / "text.jsonl", texts, megabytes)
    write_corpus(Corpus(source=str(folder / "text.jsonl")), folder / "corpus")
    saved = folder / "hugging-face"
    tokenizer = make_tokenizer(Tokens(tokenizer=str(saved)), folder / "corpus", folder)
    parts = sorted(token_parts(folder / "corpus"), key=lambda part: part.start - part.stop)
    documents = [text for split in SPLITS for text in read_documents(folder / "corpus", split)]
    print(f"{size:.0f} MB in {len(parts)} parts; {machine()}")
    print(f"| turn | one worker, s | {workers} workers, s | times as fast | library, s | {workers} processes, s | |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for turn in range(1, turns + 1):
        # The smallest parts, so that as many workers as there will be have started and loaded the tokenizer.
        make_parts(tokenizer, parts[-2 * workers :], folder, workers)
        one, more = (seconds(lambda n=n: make_parts(tokenizer, parts, folder, n)) for n in (1, workers))  # type: ignore[misc]
        alone, shared = (seconds(partial(encode_in_processes, saved, documents, n)) for n in (1, workers))
        ratios.append((one / more, alone / shared))
        columns = [f"{one:.1f}", f"{more:.1f}", f"{one / more:.2f}", f"{alone:.1f}", f"{shared:.1f}"]
        print(f"| {turn} | {' | '.join(columns)} | {alone / shared:.2f} |", flush=True)
    of_workers, of_library = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"| median | | | {of_workers:.2f} | | | {of_library:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    ray = RayInstance(Execution(max_parallel=asked.workers))
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(Corpus(), folder / "python")
        texts = [text for split in SPLITS for text in read_documents(folder / "python", split)]
        save_tokenizer(folder, texts)

        def work() -> None:
            try:
                measure(folder, texts, asked.megabytes, asked.workers, asked.turns)
            finally:
                ended.set()

        def refuse(error: Exception) -> None:
            print(error, file=sys.stderr)
            ended.set()

        ray.do(work, refuse)
        ended.wait()
        ray.end()


if __name__ == "__main__":
    main()
