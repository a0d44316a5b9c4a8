"""What the two stages of text, corpus and tokens, do alike: when other workers do their parts, and how far they are."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from calm_bench.published_parts import PartMapper
from pipelines.study.cost import CostContext
from pipelines.study.stage import Interrupted
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_folder import METRICS_FILE

MUCH_TEXT = 64 * 2**20
"""Bytes of text from which on several workers are worth their start; one process is through with less in a second or
two, or with a Hugging Face tokenizer in half a minute."""

Part = TypeVar("Part")
Found = TypeVar("Found")


LISTEN_S = 0.1
STOPPED: Any = object()
_NO_MORE = object()


class Text(NamedTuple):
    """What one part added."""

    bytes: int
    tokens: int = 0


def part_workers(num_bytes: float, context: CostContext) -> int:
    """How many workers share so many bytes of text."""
    return context.at_once if num_bytes > MUCH_TEXT else 1


def watched_parts(context: StageContext, folder: Path, text_of: Callable[[Any], Text | None]) -> PartMapper:
    """``context.map_parts``, which ends when the stage is to stop and tells in ``metrics.jsonl`` how far it is.

    Args:
        text_of: the text in what a part found; None where it is not to be told.
    """

    def mapper(work: Callable[[Part], Found], parts: Sequence[Part]) -> Generator[Found, None, None]:
        started = time.perf_counter()
        done = num_bytes = tokens = 0
        with closing(_waited_for(context.map_parts(work, parts), context.stop)) as found:
            for one in found:
                if one is STOPPED:
                    break
                text = text_of(one)
                if text is not None and len(parts) > 1:
                    done, num_bytes, tokens = done + 1, num_bytes + text.bytes, tokens + text.tokens
                    seconds = max(time.perf_counter() - started, 1e-9)
                    metrics = {"mb_per_second": num_bytes / 1e6 / seconds}
                    metrics |= {"tokens_per_second": tokens / seconds} if tokens else {}
                    line = {"step": done, "total_steps": len(parts), "tokens": tokens, "time": seconds}
                    with (folder / METRICS_FILE).open("w" if done == 1 else "a") as log:
                        log.write(json.dumps({**line, "split": "train", "metrics": metrics}) + "\n")
                yield one
                if context.stop():
                    break
            else:
                return
        raise Interrupted(f"stopped after {done} of {len(parts)} parts, which are kept")

    return mapper


def _waited_for(found: Generator[Found, None, None], stop: Callable[[], bool]) -> Generator[Found, None, None]:
    """What ``found`` gives, each when it is asked for; :data:`STOPPED` once ``stop()`` turns true meanwhile.

    A part may take minutes in a library that hears nothing, as BPE does that learns from gigabytes. So it is made in a
    thread of its own, which is left to itself then: what it has made by its end is a part like others, or nothing.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def make() -> None:
        with closing(found):
            while wanted.get():
                try:
                    made.put((next(found, _NO_MORE), None))
                except BaseException as error:
                    made.put((None, error))

    threading.Thread(target=make, name="parts", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            while True:
                with suppress(queue.Empty):
                    one, error = made.get(timeout=LISTEN_S)
                    break
                if stop():
                    yield STOPPED
                    return
            if error is not None:
                raise error
            if one is _NO_MORE:
                return
            yield one
    finally:
        wanted.put(False)
