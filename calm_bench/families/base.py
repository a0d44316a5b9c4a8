"""The contract of a family's description: everything that a plan asks, and the name of the network that trains.

A description imports no torch. FLOPs are per backbone step (one chunk of K tokens) and leave out the backbone, which
all families share; :mod:`calm_bench.flops` has the rules, :mod:`calm_bench.part_costs` the parts that several share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, Literal

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.family_registry import FAMILIES, FamilyRules
from calm_bench.head_costs import Accounting
from calm_bench.part_memory import Device

Parts = Mapping[str, float]
"""Amounts by part; a part with a name of the backbone's would replace it."""


class Family(FamilyRules, ABC):
    """A family of models.

    Shape letters: R positions (chunks) of a micro-batch, d hidden size, K tokens of a chunk, V vocabulary.
    """

    network: ClassVar[str]
    """``module:Class`` of a :class:`calm_bench.lm.base.ChunkLanguageModel`, built from ``(model, vocab_size)``, or from
    ``(model, autoencoder)`` if the family needs one."""
    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "none"
    """What the network knows of the probability of a chunk: itself, a lower bound of its logarithm from samples, or
    nothing. ``exact`` is for a :class:`calm_bench.lm.exact.ExactModel`."""

    def chunk_size(self, model: LanguageModel) -> int:
        """K."""
        return self.fixed_chunk_size or model.chunk_size

    def network_of(self, model: LanguageModel) -> str:
        """``module:Class`` of the network of ``model``."""
        return self.network

    def likelihood_of(self, model: LanguageModel) -> Literal["exact", "bound", "none"]:
        """:attr:`likelihood` of ``model``."""
        return self.likelihood

    def draws_by_rows(self, model: LanguageModel, autoencoder: Autoencoder | None) -> bool:
        """Whether the network of ``model`` does (:attr:`calm_bench.lm.base.ChunkLanguageModel.draws_by_rows`), so that
        workers can share the rows of a micro-batch. Imports the network, and torch with it."""
        module, _, name = self.network_of(model).partition(":")
        return bool(getattr(import_module(module), name).draws_by_rows)

    @abstractmethod
    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        """FLOPs of training a chunk, forward and backward, without the backbone's.

        Args:
            accounting: ``paper`` leaves out what the paper of CALM leaves out; other families have one accounting.
        """

    @abstractmethod
    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        """FLOPs of drawing a chunk once at temperature 1 and of embedding it, without the backbone's."""

    @abstractmethod
    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        """Trained parameters beside the backbone's and the token embeddings'; those of a part ``input`` are added to
        the embeddings'."""

    @abstractmethod
    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        """Numbers of a position that are kept for the backward pass, without the backbone's."""

    @abstractmethod
    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        """Numbers that the loss of ``rows`` positions holds beside what is kept, at its worst moment."""

    @abstractmethod
    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        """Numbers held while ``samples`` chunks are drawn, at the worst moment."""


def family_of(model: LanguageModel) -> Family:
    """The family that ``model`` is of."""
    family = FAMILIES.get(model.kind)
    if not isinstance(family, Family):
        raise TypeError(f"model.kind {model.kind!r} names {family!r}, which is no calm_bench.families.base.Family")
    return family
