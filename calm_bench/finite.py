"""Refusal of NaN and infinity: in what a model computes, and in the weights that it was read with.

What is drawn from such numbers are ordinary tokens, so nothing else would tell: an argmax never fails, and attention on
a CPU takes scores of NaN for text that says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from calm_bench.errors import RunError, UsageError


class NotFinite(RunError, ArithmeticError):
    """A model computed NaN or infinity, so what would be drawn from it means nothing."""


class NotFiniteWeights(UsageError, NotFinite):
    """A model's weights hold NaN or infinity; nothing was computed with them."""


def require_finite_weights(parameters: Iterable[tuple[str, Tensor]], owner: str = "model") -> None:
    """Look at every number of a model's weights, by one wait: what one of the model's steps reads, too.

    Args:
        parameters: named, of floating point or not, on any devices.
        owner: whose they are, for the message.

    Raises:
        NotFiniteWeights: some are not; names the first of them.
    """
    named = [(name, parameter.detach()) for name, parameter in parameters if parameter.is_floating_point()]
    if not named:
        return
    device = named[0][1].device
    totals = torch.stack([tensor.sum(dtype=torch.float32).to(device) for _, tensor in named])
    for (name, tensor), is_finite in zip(named, totals.isfinite().tolist(), strict=True):
        # The sum of large numbers may be beyond all numbers though none of them is.
        if not is_finite and not tensor.isfinite().all():
            raise NotFiniteWeights(
                f"the {owner}'s weights ({name}) are not finite: they are damaged, or its training diverged"
            )


def require_finite(values: Tensor, what: str) -> None:
    """Wait for ``values`` and look at them; inside :func:`deferred_checks`, note them for later.

    Raises:
        NotFinite: some of ``values`` are not.
    """
    # A tenth of the time of values.isfinite().all(): nothing times infinity is no number, and so is a sum with one.
    finite = (values * 0).sum() == 0
    if (deferred := _deferred.get()) is None:
        _require(bool(finite), what)
    else:
        deferred.noted.append((finite, what))


class DeferredChecks:
    """What :func:`require_finite` was asked, not answered yet."""

    def __init__(self) -> None:
        self.noted: list[tuple[Tensor, str]] = []
        """Bool [], on the values' device, and what the values are."""

    def settle(self, finite: Sequence[int]) -> None:
        """
        Args:
            finite: the tensors of :attr:`noted`, fetched.

        Raises:
            NotFinite: one of them is false.
        """
        for is_finite, (_, what) in zip(finite, self.noted, strict=True):
            _require(bool(is_finite), what)


_deferred: ContextVar[DeferredChecks | None] = ContextVar("deferred", default=None)


@contextmanager
def deferred_checks() -> Iterator[DeferredChecks]:
    """:func:`require_finite` waits for nothing inside: whoever opens this fetches its answers together with the
    results, and settles them before the results are used. Ids are in the vocabulary even where they mean nothing."""
    checks = DeferredChecks()
    token = _deferred.set(checks)
    try:
        yield checks
    finally:
        _deferred.reset(token)


@contextmanager
def one_check() -> Iterator[None]:
    """All that :func:`require_finite` is asked inside is answered at the end, by one wait; inside
    :func:`deferred_checks`, when that is settled.

    Raises:
        NotFinite: at the end, as :func:`require_finite`.
    """
    if _deferred.get() is not None:
        yield
        return
    with deferred_checks() as checks:
        yield
    if checks.noted:
        checks.settle(torch.stack([finite for finite, _ in checks.noted]).tolist())


def _require(is_finite: bool, what: str) -> None:
    if not is_finite:
        raise NotFinite(f"the model's {what} are not finite: its weights are damaged, or its training diverged")
