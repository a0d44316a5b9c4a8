"""Steps that a GPU plays back by itself: CUDA graphs.

A step of a small batch is some hundred short kernels, which Python launches more slowly than a GPU computes them.
Recorded once, they are launched together.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

VARIABLE = "CALM_BENCH_CUDA_GRAPHS"
"""``0``: nothing is recorded."""
AS_IT_IS = 3
"""Calls before a recording, in which libraries allocate what they need."""


class Recorded:
    """A function of one tensor, recorded on a GPU and played back from the fourth call on.

    The function does the same operations on the same memory every time, waits for nothing, and draws no random numbers.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._calls = 0
        self._playback: Callable[[Tensor], Tensor] | None = None

    def __call__(self, given: Tensor) -> Tensor:
        """``function(given)``; every ``given`` has the shape of the first.

        Raises:
            RuntimeError: the function cannot be recorded; a note says how to do without.
        """
        if self._playback is None:
            self._calls += 1
            if self._calls <= AS_IT_IS or not can_record(given.device):
                return self._function(given)
            try:
                self._playback = _recorded(self._function, given)
            except RuntimeError as error:
                error.add_note(f"{VARIABLE}=0 generates without CUDA graphs")
                raise
        return self._playback(given)


def can_record(device: torch.device) -> bool:
    """Whether functions on ``device`` are recorded, as :data:`VARIABLE` has it; never on a CPU."""
    return device.type == "cuda" and torch.cuda.is_available() and os.environ.get(VARIABLE) != "0"


def _recorded(function: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[Tensor], Tensor]:
    inputs = given.clone()
    # Only operations of the current device are recorded: those of another one would be done once and never again.
    with torch.cuda.device_of(given):
        graph = torch.cuda.CUDAGraph()
        # Nothing is computed here. Other threads may go on allocating.
        with torch.cuda.graph(graph, stream=_stream(given.device), capture_error_mode="thread_local"):
            outputs = function(inputs)

    def play(given: Tensor) -> Tensor:
        inputs.copy_(given)
        graph.replay()
        # The next step overwrites what this one found.
        return outputs.clone()

    return play


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings on ``device``: the matrix library keeps memory for each. The one that torch has by itself
    is on the device that was current when something was first recorded in this process."""
    return torch.cuda.Stream(device)
