"""An exponential moving average of the weights, which is validated, kept and saved in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

_STATE = "weight_average"


class WeightAverage:
    """The moving average of the weights that an optimizer trains; nothing at all where there is no decay.

    It lies in the optimizer's state, beside Adam's own two averages, so that checkpoints hold it and workers that hold
    a model in pieces have their piece of it.

    Args:
        decay: share of the average that a step leaves as it is; None keeps no average. The first steps leave less,
            ``(1 + n) / (10 + n)`` after ``n`` of them: the weights that a model starts with would stay in it for long.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], decay: float | None
    ) -> None:
        self._optimizer, self._parameters, self._decay = optimizer, parameters, decay

    @torch.no_grad()
    def note(self, step: int) -> None:
        """Take in the weights after the step ``step``, the first of which is 1."""
        if self._decay is None:
            return
        decay = min(self._decay, step / (9 + step))
        for parameter in self._parameters:
            state = self._optimizer.state[parameter]
            if not state:
                continue  # never had a gradient, so it is as it began; Adam knows its first step by the empty state
            if _STATE not in state:
                state[_STATE] = parameter.detach().clone()
            else:
                state[_STATE].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has its averaged weights inside the block, and those it is trained with after it."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the averaged weights into the model, and what the model had in their place."""
        if self._decay is None:
            return
        for parameter in self._parameters:
            state = self._optimizer.state[parameter]
            if _STATE in state:
                trained = parameter.detach().clone()
                parameter.copy_(state[_STATE])
                state[_STATE].copy_(trained)
