"""What the two stages of text, corpus and tokens, do alike: when other workers do their parts, and how far they are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
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
        with closing(context.map_parts(work, parts)) as found:
            for one in found:
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
                    raise Interrupted(f"stopped after {done} of {len(parts)} parts, which are kept")

    return mapper
