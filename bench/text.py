"""How fast text becomes a corpus and tokens, beside the tokenizer's own library and ``datasets``, in one run.

    python -m bench.text [--megabytes 64] [--rounds 3] [--workers 1 2] [--only TEXT ...] [--threads]
    python -m bench.text --memory [--megabytes 64] [--tokenizer bytes] [--quality near]

The text is the documentation of Python, shuffled anew as often as it takes; the tokenizer is a byte-level BPE of 32,000
entries trained on it, saved as transformers does. Rows of a round are measured in turns, each from a file that was just
read; what is printed is the median of the rounds. MB are of text. ``--memory`` tells peaks of memory by size instead.
Without ``--threads`` a tokenizer has one thread, as in a worker of parts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.measure import machine
from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import SPLITS, read_documents, write_corpus
from calm_bench.tokens import build_tokenizer, write_tokens
from calm_bench.tokens.bpe import END_OF_TEXT, BpeTokenizer

VOCABULARY = 32_000
MIXED = "mixed.jsonl"
"""Of the same words in another order in every document, for what compares documents."""
QUALITY = {"near": {"duplicates": "near"}, "words": {"decontaminate_words": 13}}
MEASURE = r"""
import json, re, sys
from pathlib import Path
from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.tokens import write_tokens

def peak():
    # What getrusage tells begins with the process that started this one.
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

source, folder, tokenizer, quality = sys.argv[1:]
report = write_corpus(Corpus(source=source, quality=json.loads(quality)), Path(folder, "corpus"))
corpus = peak()
write_tokens(Tokens(tokenizer=tokenizer), Path(folder, "corpus"), Path(folder, "tokens"))
print(sum(report.documents.values()), corpus, peak())
"""


def write_text(path: Path, texts: list[str], megabytes: float, mix_words: bool = False) -> float:
    """Write so much of ``texts`` as JSON lines; returns the megabytes of text.

    Args:
        mix_words: bring the words of each document into another order, so that no two of them are alike.
    """
    generator = random.Random(0)
    written = 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            for original in generator.sample(texts, len(texts)):
                words = original.split() if mix_words else []
                text = " ".join(generator.sample(words, len(words))) if mix_words else original
                file.write(json.dumps({"text": text}) + "\n")
                written += len(text.encode())
    return written / 1e6


def save_tokenizer(folder: Path, texts: list[str]) -> None:
    """Train a tokenizer and save it as one of transformers."""
    from transformers import PreTrainedTokenizerFast

    BpeTokenizer.train(texts, VOCABULARY).save(folder / "own")
    backend = PreTrainedTokenizerFast(tokenizer_file=str(folder / "own" / "tokenizer.json"), eos_token=END_OF_TEXT)
    backend.save_pretrained(str(folder / "hugging-face"))


def measure(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall time, CPU time, that of processes which have ended included, and what ``work`` returns."""
    began, cpu = time.perf_counter(), _cpu()
    returned = work()
    return time.perf_counter() - began, _cpu() - cpu, returned


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def rows(source: Path, folder: Path, tokenizer: Path, workers: list[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, by name."""
    corpus = folder / "corpus"
    texts = [text for split in SPLITS for text in read_documents(corpus, split)]
    yield "corpus", lambda: write_corpus(Corpus(source=str(source)), _empty(folder / "again"))
    for name, quality in QUALITY.items():
        yield f"corpus, {name}", partial(with_quality, source.with_name(MIXED), quality, folder)
    yield "tokens, bytes", lambda: write_tokens(Tokens(), corpus, _empty(folder / "bytes"))
    config = Tokens(tokenizer=str(tokenizer))
    yield "tokens, 32k", lambda: write_tokens(config, corpus, _empty(folder / "tokens"))
    yield "encode_batch_fast", lambda: encode(tokenizer, texts)
    yield "datasets.map, num_proc=2", lambda: datasets_map(source, tokenizer, _empty(folder / "datasets"))
    for count in workers:
        yield f"encode_batch_fast, {count} processes", partial(encode_in_processes, tokenizer, texts, count)
    for count in workers:
        yield f"both stages on Ray, {count} at once", partial(on_ray, source, config, folder / "store", count)


def with_quality(source: Path, quality: dict[str, Any], folder: Path) -> None:
    """A corpus whose documents are compared."""
    write_corpus(Corpus(source=str(source), quality=quality), _empty(folder / "again"))


def encode(folder: Path, texts: list[str]) -> None:
    """The ids of all texts by the library itself, in batches, thrown away."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for begin in range(0, len(texts), 256):
        for encoding in backend.encode_batch_fast(texts[begin : begin + 256], add_special_tokens=False):
            encoding.ids  # noqa: B018 - what one wants of it


def encode_in_processes(folder: Path, texts: list[str], count: int) -> None:
    """As :func:`encode`, the texts shared by ``count`` processes: what several gain on this machine."""
    shares = [texts[index::count] for index in range(count)]
    # Forks, so that no text travels.
    processes = [get_context("fork").Process(target=encode, args=(folder, share)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def datasets_map(source: Path, folder: Path, cache: Path) -> None:
    """As users of ``datasets`` do: load, map in two processes, which writes Arrow files."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    backend = AutoTokenizer.from_pretrained(str(folder))
    loaded = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=str(cache))
    loaded.map(
        lambda batch: {"input_ids": backend(batch["text"], add_special_tokens=False)["input_ids"]},
        batched=True,
        num_proc=2,
        remove_columns=["text"],
    )


def on_ray(source: Path, tokens: Tokens, folder: Path, workers: int) -> float:
    """The two stages as a study runs them, the start of Ray and of the workers included.

    Returns:
        MB/s of the tokens without that start: from when as many parts were done as there are workers, to the last.
    """
    from pipelines.execution.ray_executor import RayExecutor
    from pipelines.store.metrics_log import read_lines
    from pipelines.store.store import Store
    from pipelines.study.config import Execution
    from pipelines.study.graph import stages_for

    graph = stages_for(Experiment(corpus=Corpus(source=str(source)), tokens=tokens))
    store = Store(_empty(folder))
    executor = RayExecutor(store, Execution(max_parallel=workers))
    try:
        for kind in ("corpus", "tokens"):
            executor.submit(graph[kind]).result()
    finally:
        executor.close()
    done = [
        (line.time, line.metrics["mb_per_second"] * line.time)
        for line in read_lines("tokens", store.folder(graph["tokens"]))
    ]
    (began, before), (ended, all_of_it) = done[workers - 1], done[-1]
    return (all_of_it - before) / (ended - began)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def print_speeds(
    folder: Path, texts: list[str], megabytes: float, rounds: int, workers: list[int], only: list[str]
) -> None:
    """A table, a line a row, of those with one of ``only`` in their names."""
    size = write_text(folder / "text.jsonl", texts, megabytes)
    write_text(folder / MIXED, texts, megabytes, mix_words=True)
    write_corpus(Corpus(source=str(folder / "text.jsonl")), folder / "corpus")
    # Imports are no part of any row.
    build_tokenizer(Tokens(tokenizer=str(folder / "hugging-face")), []).encode_documents(texts[:1])
    measured: dict[str, list[tuple[float, float, Any]]] = {}
    for _ in range(rounds):
        for name, work in rows(folder / "text.jsonl", folder, folder / "hugging-face", workers):
            if not any(text in name for text in only):
                continue
            measured.setdefault(name, []).append(measure(work))
            print(f"{name}: {measured[name][-1]}", file=sys.stderr, flush=True)
    print(f"{size:.0f} MB, {rounds} rounds; {machine()}")
    print("| | MB/s | MB per CPU second | cores | tokens, MB/s once started |\n|---|---|---|---|---|")
    for name, found in measured.items():
        wall, cpu = (statistics.median(column) for column in list(zip(*found, strict=True))[:2])
        # Ray's workers are no children of this process.
        on_ray = " | ".join(["", "", f"{statistics.median(rate for *_, rate in found):.2f}"]) if "Ray" in name else ""
        print(f"| {name} | {size / wall:.2f} | {on_ray or f'{size / cpu:.2f} | {cpu / wall:.2f} | '} |")


def print_memory(folder: Path, texts: list[str], megabytes: float, tokenizer: str, quality: str | None) -> None:
    """Peaks of one process that makes both stages, at a quarter, half and all of the text."""
    print("| text, MB | documents | corpus, MB | tokens, MB |\n|---|---|---|---|")
    settings = json.dumps({} if quality is None else QUALITY[quality])
    for share in (0.25, 0.5, 1.0):
        size = write_text(folder / "text.jsonl", texts, megabytes * share, mix_words=quality is not None)
        command = [sys.executable, "-c", MEASURE, str(folder / "text.jsonl"), str(_empty(folder / "out"))]
        out = subprocess.run([*command, tokenizer, settings], check=True, capture_output=True, text=True)
        documents, corpus, tokens = map(float, out.stdout.split())
        print(f"| {size:.0f} | {documents:,.0f} | {corpus:.0f} | {tokens:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="rows with one of these in their names")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--tokenizer", choices=["32k", "bytes"], default="32k", help="of --memory")
    parser.add_argument("--quality", choices=list(QUALITY), help="of --memory: near duplicates, or decontamination")
    parser.add_argument("--threads", action="store_true", help="let tokenizers use all cores, as they do by themselves")
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if asked.threads else "false"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(Corpus(), folder / "python")
        texts = [text for split in SPLITS for text in read_documents(folder / "python", split)]
        if asked.tokenizer == "32k" or not asked.memory:
            save_tokenizer(folder, texts)
        if asked.memory:
            tokenizer = str(folder / "hugging-face") if asked.tokenizer == "32k" else asked.tokenizer
            print_memory(folder, texts, asked.megabytes, tokenizer, asked.quality)
        else:
            print_speeds(folder, texts, asked.megabytes, asked.rounds, asked.workers, asked.only)


if __name__ == "__main__":
    main()
