"""What is scored, where and how: everything that moves a BrierLM value, and its hash."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from calm_bench.config import Evaluation
from calm_bench.fingerprint import identity
from calm_bench.frozen import Frozen

PositiveInt = Annotated[int, Field(gt=0)]


class Protocol(Frozen):
    """The measurement behind a BrierLM value; two values are comparable only if their protocols are equal.

    One set of target positions for all models: chunk models can only continue a text at a multiple of K, so the
    positions must be multiples of every compared K, and a model that could score more positions does not.
    Lengths and positions are in tokens.
    """

    corpus_digest: str
    tokenizer_digest: str
    split: Literal["validation", "test"]
    context_length: PositiveInt
    """Length of a scored window. Windows do not overlap, and no target sees further back than its window's start."""
    first_position: PositiveInt
    position_stride: PositiveInt
    ngram_lengths: tuple[PositiveInt, ...] = (1, 2, 3, 4)
    num_samples: Annotated[int, Field(ge=2)]
    max_windows: PositiveInt | None
    decode_mode: str = "sample T=1"
    seed: int
    estimator: Literal["brier-all-pairs"] = "brier-all-pairs"
    estimator_version: PositiveInt = 1

    @model_validator(mode="after")
    def _positions_exist(self) -> Protocol:
        if not self.ngram_lengths or list(self.ngram_lengths) != sorted(set(self.ngram_lengths)):
            raise ValueError(f"ngram_lengths {self.ngram_lengths} must be increasing and not empty")
        if self.first_position + self.horizon > self.context_length:
            raise ValueError(
                f"first_position {self.first_position} leaves no {self.horizon}-gram in a window of "
                f"{self.context_length} tokens"
            )
        return self

    @property
    def horizon(self) -> int:
        """Tokens in the longest scored n-gram."""
        return self.ngram_lengths[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Offsets in a window of the first token of each target n-gram; no n-gram crosses the window's end."""
        return tuple(range(self.first_position, self.context_length - self.horizon + 1, self.position_stride))

    @property
    def hash(self) -> str:
        """Identity of the protocol: 16 hex digits."""
        return identity(self)


def protocol_for(evaluation: Evaluation, corpus_digest: str, tokenizer_digest: str) -> Protocol:
    """The protocol that ``evaluation`` asks for, on one corpus in one tokenization."""
    return Protocol(corpus_digest=corpus_digest, tokenizer_digest=tokenizer_digest, **evaluation.model_dump())
