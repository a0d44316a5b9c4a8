"""How fast batches are served, and what part of the time a training waits for them, in one run.

    python -m bench.loader [--megabytes 32] [--rounds 3] [--step-ms 20] [--link-mb 50]

The text is random words as bytes, in shards of a million tokens; a batch is 16 sequences of 1,024. Speeds are of
batches alone, measured in turns; what is printed is the median of the rounds. Waiting is measured beside steps that
take ``--step-ms`` of time and no CPU, with shards that come from a server on this machine over a line of ``--link-mb``
MB/s.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.measure import machine
from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.kept_elsewhere import KeptFile, keep_elsewhere
from calm_bench.tokens import Batches, ShardBatches, ShardFiles, TokenStream, write_tokens

SHARD_TOKENS = 1_000_000
BATCH, LENGTH, WINDOW = 16, 1024, 4


def write_text(folder: Path, megabytes: float) -> Path:
    """Tokens of so many MB of random words."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(1, 10))) for _ in range(5000)]
    with (folder / "text.jsonl").open("w") as file:
        for _ in range(round(megabytes * 100)):
            file.write(json.dumps({"text": " ".join(generator.choices(words, k=1540))}) + "\n")
    write_corpus(Corpus(source=str(folder / "text.jsonl")), folder / "corpus")
    write_tokens(Tokens(shard_tokens=SHARD_TOKENS), folder / "corpus", folder / "tokens")
    return folder / "tokens"


class SlowFiles(SimpleHTTPRequestHandler):
    """Files of a folder, sent as over a line."""

    def __init__(self, *arguments: Any, bytes_per_second: float, **settings: Any) -> None:
        self._bytes_per_second = bytes_per_second
        super().__init__(*arguments, **settings)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        begun, sent = time.perf_counter(), 0
        while piece := source.read(2**16):
            outputfile.write(piece)
            sent += len(piece)
            time.sleep(max(0.0, sent / self._bytes_per_second - (time.perf_counter() - begun)))

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def kept_at_an_address(tokens: Path, folder: Path, bytes_per_second: float) -> Iterator[Path]:
    """A folder of the same tokens, whose shards a server has."""
    handler = partial(SlowFiles, directory=str(tokens), bytes_per_second=bytes_per_second)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(tokens / "manifest.json", folder)
    names = [path.relative_to(tokens).as_posix() for path in tokens.glob("train/shard-*.arrow")]
    keep_elsewhere(folder, {name: KeptFile(f"http://127.0.0.1:{server.server_port}/{name}") for name in names})
    try:
        yield folder
    finally:
        server.shutdown()
        server.server_close()


def whole(tokens: Path) -> Batches:
    return Batches(TokenStream.open(tokens, "train"), BATCH, LENGTH, 0)


def windowed(tokens: Path) -> ShardBatches:
    return ShardBatches(ShardFiles(tokens, "train"), BATCH, LENGTH, 0, WINDOW)


def tokens_per_cpu_second(batches: Batches | ShardBatches, steps: int) -> float:
    """Of ``steps`` batches, after one that opens what is opened once."""
    with closing(batches):
        batches.take()
        begun = time.process_time()
        for _ in range(steps):
            batches.take()
        return steps * BATCH * LENGTH / (time.process_time() - begun)


def waiting_share(batches: Batches | ShardBatches, steps: int, step_s: float) -> float:
    """The part of the time that ``take`` needs, the first batch included."""
    with closing(batches):
        begun, taking = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batches.take()
            taking += time.perf_counter() - asked
            time.sleep(step_s)
        return taking / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-ms", type=float, default=20)
    parser.add_argument("--link-mb", type=float, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = write_text(folder, given.megabytes)
        # An epoch and a little more.
        steps = round(1.1 * len(TokenStream.open(tokens, "train")) / (BATCH * LENGTH))
        with kept_at_an_address(tokens, folder / "near", given.link_mb * 1e6) as far:
            kinds: dict[str, Callable[[], Batches | ShardBatches]] = {
                "the whole text, mapped": partial(whole, tokens),
                f"a window of {WINDOW} shards": partial(windowed, tokens),
                f"a window of {WINDOW} shards, fetched": partial(windowed, far),
            }
            speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
            shares: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(given.rounds):
                for kind, make in kinds.items():
                    speeds[kind].append(tokens_per_cpu_second(make(), steps))
                for kind, make in kinds.items():
                    shares[kind].append(waiting_share(make(), steps, given.step_ms / 1000))
    print(f"{machine()}; {steps} batches of {BATCH * LENGTH:,} tokens, steps of {given.step_ms:g} ms")
    print("| batches from | million tokens per CPU second | waiting, % of the time |\n|---|---|---|")
    for kind in kinds:
        speed, share = statistics.median(speeds[kind]) / 1e6, 100 * statistics.median(shares[kind])
        print(f"| {kind} | {speed:.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
