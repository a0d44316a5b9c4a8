"""How fast a model writes, taken from the texts that it writes anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

WARM_UP = 2
"""Steps that are left out: the first one reads the prompts, the second one is the first of its kind."""


class WritingSpeed:
    """Tokens per second of a batch of texts; called with each piece as it is drawn (``on_tokens`` of
    :func:`calm_bench.sampling.generate.generate_batch`).

    Counted are the steps after :data:`WARM_UP` in which every text of the batch gains a whole chunk: with the first
    text that ends, the batch is another one. A step's tokens have left the device when they are told, so a GPU's work
    is in the time.
    """

    def __init__(self, num_texts: int, chunk_size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._num_texts = num_texts
        self._chunk_size = chunk_size
        self._clock = clock
        self._last = -1
        self._gained: list[list[int]] = []
        """Tokens of each text that gained some, by step."""
        self._ends: list[float] = []
        """When each step ended."""

    def __call__(self, index: int, piece: list[int]) -> None:
        """Take note of a piece of the text ``index``; those of one step come in the order of the texts."""
        if not piece:
            return
        now = self._clock()
        if not self._gained or index <= self._last:
            self._gained.append([])
            self._ends.append(now)
        self._last = index
        self._gained[-1].append(len(piece))
        self._ends[-1] = now

    def result(self) -> dict[str, float] | None:
        """``batch_size``, ``tokens``, ``seconds`` and ``tokens_per_second``; None where the texts were too short."""
        whole = [self._chunk_size] * self._num_texts
        steps = sum(1 for _ in takewhile(lambda gained: gained == whole, self._gained[WARM_UP:]))
        seconds = self._ends[WARM_UP + steps - 1] - self._ends[WARM_UP - 1] if steps else 0.0
        if seconds <= 0:
            return None
        tokens = steps * sum(whole)
        return {
            "batch_size": self._num_texts,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
        }


def chosen_speed(speeds: Sequence[Mapping[str, Any]], decode_mode: str) -> Mapping[str, Any] | None:
    """The speed that stands in the leaderboard, of those that the stage ``samples`` measured: in ``decode_mode``, in
    which the FLOPs per token are counted, and if no text was written so, the first; None where there is none."""
    in_mode = [speed for speed in speeds if speed["decode_mode"] == decode_mode]
    return next(iter([*in_mode, *speeds]), None)


def in_words(speed: Mapping[str, Any]) -> str:
    """How a speed was measured, for instance ``sample T=1, 2 texts at once, cpu: x86_64``."""
    batch = int(speed["batch_size"])
    together = "1 text at a time" if batch == 1 else f"{batch} texts at once"
    return f"{speed['decode_mode']}, {together}, {speed['device']}"
