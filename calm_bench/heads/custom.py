"""A head from anywhere: a class that the configuration names, and what it costs by counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from calm_bench.head_config import CustomHead as CustomHeadConfig
from calm_bench.heads.base import Head
from calm_bench.heads.noise import Noise
from calm_bench.overrides import ConfigurationError
from calm_bench.own_code import import_own
from calm_bench.own_contract import BrokenContract, checked_loss, learnable_loss, make, place, telling
from calm_bench.registry import UnknownName

FEW, MANY = 8, 16
"""Positions of the two passes that are counted; their difference leaves out what a batch costs once."""


class CustomHead(Head):
    """Wraps ``target(hidden_size, latent_size, **options)``, which must keep the contract of :class:`Head`."""

    def __init__(self, config: CustomHeadConfig, hidden_size: int, latent_size: int) -> None:
        """
        Raises:
            UnknownName: nothing importable has the name ``target``.
            BrokenContract: ``target`` is no class derived from :class:`Head`, or lacks a part of it.
        """
        super().__init__()
        self.config = config
        head = _imported(config.target)
        if not (isinstance(head, type) and issubclass(head, Head)):
            raise BrokenContract(f"{place(config.target)} is no class derived from calm_bench.heads.Head")
        # A head chooses its own arguments beyond the two sizes.
        sizes = {"hidden_size": hidden_size, "latent_size": latent_size}
        self.inner: Head = make(config.target, head, sizes, config.options)
        self.draws_by_rows = self.inner.draws_by_rows

    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return checked_loss(self.config.target, self.inner.loss(hidden, target_mean, target_log_std, generator))

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.inner.sample(hidden, num_samples, generator)

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        return self.inner.sample_from(hidden, noise)

    def sample_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        return self.inner.sample_rows(hidden, num_samples, generators)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_own(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName(f"model.head.target {target!r} cannot be imported: {error}") from error


def counted_cost(config: CustomHeadConfig, hidden_size: int, latent_size: int) -> tuple[float, float, int]:
    """FLOPs of training a position (forward and backward) and of one sample alone, and parameters, as torch counts.

    Raises:
        ConfigurationError: the class does not keep the contract of :class:`Head`, or raises an error.
    """
    head = _built(config, hidden_size, latent_size)
    generator = torch.Generator().manual_seed(0)

    def trained(positions: int) -> int:
        hidden = torch.randn(positions, hidden_size, generator=generator).requires_grad_()
        target = torch.randn(positions, latent_size, generator=generator)
        with FlopCounterMode(display=False) as counter:
            learnable_loss(config.target, head.loss(hidden, target, torch.zeros_like(target), generator)).backward()
        return int(counter.get_total_flops())

    with telling(config.target, "loss"):
        training = (trained(MANY) - trained(FEW)) / (MANY - FEW)
    with telling(config.target, "sample"):
        _check_samples(head, config.target, hidden_size, latent_size)
    with telling(config.target, "sample"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.sample(torch.randn(1, hidden_size, generator=generator), 1, generator)
    return training, float(counter.get_total_flops()), sum(p.numel() for p in head.parameters())


def head_draws_by_rows(config: CustomHeadConfig, hidden_size: int, latent_size: int) -> bool:
    """:attr:`Head.draws_by_rows` of a head of ``config``."""
    return _built(config, hidden_size, latent_size).draws_by_rows


def _built(config: CustomHeadConfig, hidden_size: int, latent_size: int) -> CustomHead:
    """A head to look at: the random numbers of this process stay as they were."""
    with torch.random.fork_rng(devices=[]), telling(config.target, "__init__"):
        return CustomHead(config, hidden_size, latent_size)


def _check_samples(head: Head, target: str, hidden_size: int, latent_size: int) -> None:
    """Refuse a class whose samples have another shape than :meth:`Head.sample` says.

    Raises:
        ConfigurationError: they have; says which.
    """
    # Three numbers that no other dimension has: what is swapped or left out shows.
    samples, rows, columns = 5, 2, 3
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = head.sample(torch.randn(rows, columns, hidden_size, generator=generator), samples, generator)
    wanted = (samples, rows, columns, latent_size)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != wanted:
        raise ConfigurationError(
            f"{place(target)}: sample(hidden [{rows}, {columns}, {hidden_size}], num_samples={samples}) gives "
            f"{shape} instead of {wanted}, which is [num_samples, ..., latent_size]"
        )
