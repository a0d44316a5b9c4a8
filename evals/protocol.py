"""What is scored, where and how: everything that moves a BrierLM value, and its hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from calm_bench.config import Evaluation
from calm_bench.errors import UsageError
from calm_bench.fingerprint import identity
from calm_bench.frozen import Frozen, PositiveInt
from calm_bench.problems import explain

NGRAM_LENGTHS = (1, 2, 3, 4)
PAPER_SAMPLES = 2
_OF_MATCHED = ("first_position", "position_stride", "num_samples")
"""Settings that the paper's protocol chooses itself."""


class EvaluationError(UsageError, ValueError):
    """The protocol cannot be carried out on this text or this model; the message says what to change."""


Made = TypeVar("Made", bound=Frozen)


def made(kind: type[Made], **settings: Any) -> Made:
    """``kind(**settings)``, a protocol.

    Raises:
        EvaluationError: a setting that does not exist or is out of its range; names each, and the range.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        raise EvaluationError("; ".join(explain(kind, error))) from None


class Protocol(Frozen):
    """The measurement behind a BrierLM value; two values are comparable only if their protocols are equal.

    ``matched`` has one set of target positions for all models: chunk models can only continue a text at a multiple of
    K, so the positions must be multiples of every compared K, and a model that could score more positions does not.
    ``paper`` has those of the reference implementation, which differ by K, so that its scores of different K do not
    rank together. Lengths and positions are in tokens.

    How the expectation is estimated (:mod:`evals.estimators`) is no part of this: all estimators have the same one.
    """

    name: Literal["matched", "paper"] = "matched"
    corpus_digest: str
    tokenizer_digest: str
    split: Literal["validation", "test"]
    context_length: PositiveInt
    """Length of a scored window. Windows do not overlap, and no target sees further back than its window's start."""
    first_position: PositiveInt
    position_stride: PositiveInt
    last_position: PositiveInt | None = None
    """Unset means the last from which the longest n-gram fits into the window."""
    ngram_lengths: tuple[PositiveInt, ...] = NGRAM_LENGTHS
    num_samples: Annotated[int, Field(ge=2)]
    max_windows: PositiveInt | None
    decode_mode: str = "sample T=1"
    seed: int

    @model_validator(mode="after")
    def _positions_exist(self) -> Protocol:
        if not self.ngram_lengths or list(self.ngram_lengths) != sorted(set(self.ngram_lengths)):
            raise ValueError(f"ngram_lengths {self.ngram_lengths} must be increasing and not empty")
        if self.first_position + self.horizon > self.context_length:
            raise ValueError(
                f"first_position {self.first_position} leaves no {self.horizon}-gram in a window of "
                f"{self.context_length} tokens: lower it to {self.context_length - self.horizon} or less, or raise "
                f"context_length to {self.first_position + self.horizon} or more"
            )
        if self.last_position is not None and not (
            self.first_position <= self.last_position <= self.context_length - self.horizon
        ):
            raise ValueError(
                f"last_position {self.last_position} must lie between first_position {self.first_position} and "
                f"{self.context_length - self.horizon}, the last with a whole {self.horizon}-gram after it"
            )
        return self

    @property
    def horizon(self) -> int:
        """Tokens in the longest scored n-gram."""
        return self.ngram_lengths[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Offsets in a window of the first token of each target n-gram; no n-gram crosses the window's end."""
        last = self.context_length - self.horizon if self.last_position is None else self.last_position
        return tuple(range(self.first_position, last + 1, self.position_stride))

    @property
    def hash(self) -> str:
        """Identity of the protocol: 16 hex digits."""
        return identity(self)


def protocol_for(
    evaluation: Evaluation, corpus_digest: str, tokenizer_digest: str, chunk_size: int | None = None
) -> Protocol:
    """The protocol that ``evaluation`` asks for, on one corpus in one tokenization.

    Args:
        chunk_size: K of the chunk model to be scored, None for a token model; only ``paper`` depends on it.

    Raises:
        EvaluationError: ``paper`` with windows that are no whole number of chunks, or too short to score anything.
    """
    settings = evaluation.model_dump(exclude={"protocol"})
    settings |= {"name": evaluation.protocol, "corpus_digest": corpus_digest, "tokenizer_digest": tokenizer_digest}
    if evaluation.protocol == "paper":
        settings |= _paper_settings(evaluation.context_length, chunk_size)
    return Protocol(**settings)


def evaluation_settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``evaluation`` that ask for ``protocol`` (as JSON): the inverse of :func:`protocol_for`."""
    name = protocol.get("name", "matched")
    left_out = _OF_MATCHED if name == "paper" else ()
    known = {key: protocol[key] for key in Evaluation.model_fields if key in protocol and key not in left_out}
    return {**known, "protocol": name}


def _paper_settings(length: int, chunk_size: int | None) -> dict[str, Any]:
    """The positions of the reference implementation in a window of ``length`` tokens.

    A token model is scored at every position, a chunk model at the start of every chunk but the first. Chunks of four
    tokens or more hold the longest n-gram: their first four tokens are scored. Smaller ones are continued over several
    chunks, and there the reference leaves out the last start from which they would still fit.
    """
    horizon = NGRAM_LENGTHS[-1]
    first = stride = chunk_size or 1
    if length % first:
        raise EvaluationError(
            f"evaluation.context_length {length} is not a multiple of the model's chunk size {first}, as the protocol "
            "of the paper needs"
        )
    last = length - horizon
    if chunk_size is not None and chunk_size < horizon:
        num_chunks = -(-horizon // chunk_size)
        last = length - (num_chunks + 1) * chunk_size
    if last < first:
        least = -(-(first + length - last) // first) * first
        raise EvaluationError(
            f"evaluation.context_length {length} is too short for the protocol of the paper: with chunks of {first} "
            f"tokens it needs {least} or more"
        )
    return {"first_position": first, "position_stride": stride, "last_position": last, "num_samples": PAPER_SAMPLES}
