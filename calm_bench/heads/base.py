"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Generator, Tensor, nn

from calm_bench.heads.noise import Noise, OneSource, RowSources


class Head(nn.Module, ABC):
    """A conditional generator of latents: two methods, ``loss`` and ``sample``.

    Shape legend: P positions (any leading dimensions, flattened), d hidden size of the backbone, Z latent size.
    """

    draws_by_rows = False
    """Whether ``loss`` takes every random number from :func:`calm_bench.row_noise.draw`, with P as the dimension, and
    is a mean over P: several workers can then share the rows of one micro-batch. Of other heads they share whole
    micro-batches."""

    @abstractmethod
    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of predicting each target chunk's posterior.

        Args:
            hidden: [P, d].
            target_mean: [P, Z], with ``target_log_std`` the frozen encoder's posterior of the target chunk.
            target_log_std: [P, Z].
            generator: source of every random draw.

        Returns:
            Scalar loss and named, detached scalar terms to be logged.
        """

    @abstractmethod
    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Independent latents: [..., d] -> [num_samples, ..., Z]."""

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        """One latent for every sample that ``noise`` serves: [..., d] -> [..., Z], broadcast to the batch of ``noise``.

        Here :meth:`sample` is called once for each generator. A :class:`NoiseHead` needs one pass for all.
        """
        return noise.through(self.sample, hidden)

    def sample_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        """Every row's latents from a generator of its own: [R, d] -> [num_samples, R, Z].

        Row r is what ``sample(hidden[r], num_samples, generators[r])`` gives, whatever the other rows are.
        """
        return self.sample_from(hidden, RowSources(hidden, num_samples, generators))


class NoiseHead(Head):
    """A head whose samples are a function of the hidden state and of numbers from :class:`Noise`: write that function
    as ``sample_from``, and batches whose rows have generators of their own take one pass."""

    @abstractmethod
    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor: ...

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.sample_from(hidden, OneSource(hidden, num_samples, generator))


HeadNoise = tuple[Tensor, ...]
"""All random numbers of one training loss, in an order of the head's own."""


class PureHead(NoiseHead):
    """A head whose training loss is a function of its inputs and of numbers that are drawn before.

    A generator cannot be traced, so such a loss compiles whole where one that draws does not. A head of two methods
    (:class:`Head`) need not care.
    """

    @abstractmethod
    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """The numbers for targets [P, Z], by :func:`calm_bench.row_noise.draw` if :attr:`draws_by_rows`."""

    @abstractmethod
    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As :meth:`loss`, with the numbers of :meth:`noise`."""

    def compared(
        self, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise, generator: Generator | None
    ) -> dict[str, Tensor]:
        """Terms to be logged that compare positions with each other, those of other workers too; here none."""
        return {}

    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        noise = self.noise(target_mean, generator)
        loss, terms = self.loss_given(hidden, target_mean, target_log_std, noise)
        return loss, terms | self.compared(target_mean, target_log_std, noise, generator)
