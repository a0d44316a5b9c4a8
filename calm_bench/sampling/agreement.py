"""Which samples of a position agree so far, with each other and with the text: all that Brier-n asks of them.

Shape letters: R rows (positions of all windows), S samples, H tokens, Q samples that go on.
"""

from __future__ import annotations

import torch
from torch import Tensor

STOPPED = -1
"""What stands for a token that was not drawn."""


class Agreement:
    """The samples' tokens, filled in one after the other, and which samples go on."""

    def __init__(
        self, num_rows: int, num_samples: int, horizon: int, targets: Tensor | None, device: torch.device
    ) -> None:
        """With ``targets`` Long [R, h], h <= H, a sample goes on while later tokens can still match something: while
        it agrees with another sample or, up to token h, with its target."""
        self.tokens = torch.full((num_rows, num_samples, horizon), STOPPED, device=device)
        """Long [R, S, H]."""
        self.goes_on = torch.ones((num_rows, num_samples), dtype=torch.bool, device=device)
        """[R, S]."""
        self._targets = targets
        self._hit = torch.ones_like(self.goes_on)
        self._same = torch.ones((num_rows, num_samples, num_samples), dtype=torch.bool, device=device)

    def add(self, index: int, samples: Tensor, tokens: Tensor) -> None:
        """Token ``index`` of the samples that go on: Long [Q] places among R x S, and ids [Q]."""
        self.tokens.view(-1, self.tokens.shape[-1])[samples, index] = tokens
        last = self.tokens[..., index]
        self._same &= last[:, :, None] == last[:, None]
        if self._targets is None:
            return
        goes_on = self._same.sum(dim=-1) > 1
        if index + 1 < self._targets.shape[1]:
            self._hit &= last == self._targets[:, None, index]
            goes_on |= self._hit
        self.goes_on &= goes_on

    def samples(self) -> Tensor:
        """Those that go on: Long [Q], places among R x S."""
        return self.goes_on.flatten().nonzero().squeeze(1)

    def leader(self) -> Tensor:
        """The first of the samples with the same tokens so far, itself perhaps, of each sample: Long [R, S]."""
        return self._same.long().argmax(dim=-1)
