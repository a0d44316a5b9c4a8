"""What the headline consists of: families with their curves, answers with their intervals, and the paper's claim."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Basis = Literal["budgets", "trajectory", "single"]
"""Where a family's points come from: finished models at several budgets, the models kept along a training (whose
learning rate had not come down yet), or one finished model."""
Verdict = Literal["supported", "contradicted", "open"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class FamilyPoint:
    """A scored model of a family. FLOPs of training are totals, of inference per token."""

    label: str
    score: float
    standard_error: float
    """Over documents, and over seeds where the row stands for several."""
    training_flops: float
    """Training FLOPs of the language model alone."""
    autoencoder_training_flops: float
    inference_flops_per_token: float
    is_finished: bool = True
    """False for a model kept along a training."""
    is_used: bool = True
    """Whether the curve goes by this point; ``reason`` says why not."""
    reason: str = ""

    @property
    def total_training_flops(self) -> float:
        return self.training_flops + self.autoencoder_training_flops


@dataclass(frozen=True)
class Curve:
    """A fitted law with its 95 % band, evaluated between the cheapest and the dearest point: never beyond."""

    training_flops: tuple[float, ...]
    total_training_flops: tuple[float, ...]
    """With the autoencoder, of the same models."""
    inference_flops_per_token: tuple[float, ...]
    score: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    exponent: float
    """b of ``score = limit - a C^-b``; 0 or less: the points rise as the logarithm or faster and show no limit."""
    exponent_interval: tuple[float, float]
    limit: float | None
    """Where the law saturates; None where the points show no saturation (the exponent's interval holds 0)."""
    misfit: float
    """What models scatter around the law beyond the errors of their scores, one standard deviation, in score."""


@dataclass(frozen=True)
class Family:
    """All models of one kind, K and head."""

    name: str
    """``token``, ``K=4``, or ``K=4 flow`` where a study has several heads."""
    kind: str
    chunk_size: int
    head: str | None
    basis: Basis
    points: tuple[FamilyPoint, ...]
    """Cheapest training first; those that are not used included."""
    curve: Curve | None
    """None with fewer than two usable budgets."""

    @property
    def used(self) -> tuple[FamilyPoint, ...]:
        return tuple(point for point in self.points if point.is_used)


@dataclass(frozen=True)
class Ratio:
    """A family's FLOPs divided by the reference's, with a 95 % interval.

    ``value`` is None where only a bound is known. ``low`` 0 or ``high`` None: the points support no bound there.
    """

    value: float | None
    low: float
    high: float | None

    @property
    def is_known(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Answer:
    """What a family needs, as a share of what the reference needs, for the same score."""

    family: str
    reference: str
    score: float | None
    """The score at which the two are compared; None where there is no answer."""
    training: Ratio | None
    """Without the autoencoder."""
    total: Ratio | None
    """With the autoencoder's training, in full."""
    inference: Ratio | None
    """Per generated token."""
    state: Literal["answered", "bounded", "open"]
    """``bounded``: the equal score lies outside the points of one of the two, so there is a bound only."""
    sentence: str
    basis: Basis = "budgets"
    is_target: bool = False
    """True where the score was asked for, False where it is the highest that both reach."""


@dataclass(frozen=True)
class Difference:
    """Two single models at (nearly) equal training FLOPs."""

    family: str
    reference: str
    score_difference: float
    standard_error: float
    interval: tuple[float, float]
    """95 %, by itself: not corrected for the number of families (:class:`pipelines.results.pairing.RowDifference`)."""
    is_paired: bool
    """Whether documents were paired; else the error is an upper one."""
    training_ratio: float
    total_ratio: float
    inference_ratio: float
    p_value: float
    """P-value of the difference in score, corrected for the number of families that are compared
    (:mod:`pipelines.results.holm`)."""
    dominance: Literal["family", "reference", "neither"]
    """Who is better in score beyond its error and needs no more training (autoencoder included) or inference FLOPs."""
    sentence: str
    is_clipped: bool = False
    """Both scores are clipped to 0, so that their difference says nothing; the sentence tells of the components."""


@dataclass(frozen=True)
class Gain:
    """BrierLM of what one search chose minus that of what it began from."""

    stratum: str
    """Label of the search; empty where the study is one search."""
    label: str
    """What it chose."""
    value: float
    standard_error: float
    """Over documents, paired where they can be, and over seeds."""
    low: float
    high: float
    """Ends of the 95 % interval, by Student's t: few seeds tell little of how much seeds vary."""
    seeds: int
    """Fresh trainings of each of the two."""
    trials: int | None
    """How many the search tried; None in rows of a study whose leaderboard is not written yet."""
    search_flops: float | None
    """Training FLOPs of these; None where ``trials`` is."""
    sentence: str = ""
    is_clipped: bool = False
    """Both scores are clipped to 0, so that their difference says nothing."""
    study: str = ""
    """What the study of the search is called, where there are gains of several."""


@dataclass(frozen=True)
class Claim:
    """What the study says on the paper's claim for K = 4: 44 % fewer training and 34 % fewer inference FLOPs."""

    training: Verdict
    inference: Verdict
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Headline:
    """How much compute each family needs for equal BrierLM, under one protocol."""

    protocol_hash: str
    reference: str | None
    """The family that the others are compared with: the token model where there is one."""
    families: tuple[Family, ...]
    answers: tuple[Answer, ...]
    differences: tuple[Difference, ...]
    claim: Claim
    method: str
    """How the intervals were made."""
    sentences: tuple[str, ...]
    """The whole headline as plain text, the one that says most first, then the answers."""
    vectors: tuple[Difference, ...] = ()
    """CALM against the family that shares its chunks and predicts tokens, at the same K."""
    questions: tuple[str, ...] = ()
    """What the chunk does and what the vector does, a sentence each, where the families for it are there."""
    gains: tuple[Gain, ...] = ()
    """What tuning gained, by search, where a study measured it."""
    command: str | None = None
    """What to run for an answer that is still open."""

    @property
    def brief(self) -> tuple[str, ...]:
        """What says most in a sentence or two, what tuning gained, and the verdicts on the paper's claim."""
        gained = (gain.sentence for gain in self.gains)
        return (*(self.questions or self.sentences[:1]), *gained, *self.claim.sentences[1:])

    def to_dict(self) -> dict[str, Any]:
        """Plain values; unknown ones are None."""
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
