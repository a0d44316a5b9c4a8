"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn


class Head(nn.Module, ABC):
    """A conditional generator of latents: two methods, ``loss`` and ``sample``.

    Shape legend: P positions (any leading dimensions, flattened), d hidden size of the backbone, Z latent size.
    """

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
