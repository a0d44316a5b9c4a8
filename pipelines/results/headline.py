"""The headline: at equal BrierLM, what share of the token model's FLOPs does each K need?

A law is fitted to every family that has several budgets, and inverted. Errors come from a bootstrap of R replicates,
in each of which all scores are drawn anew: what the documents contribute jointly for all models where their rows carry
it (one text is hard for all of them, and that cancels), what seeds and unexplained scatter contribute to each model by
itself. Nothing is read off a law beyond its points: there, only a bound is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.results import extrapolated, sentences
from pipelines.results.answers import (
    CONFIDENCE,
    Answer,
    Claim,
    Curve,
    Difference,
    Family,
    FamilyPoint,
    Headline,
    Ratio,
)
from pipelines.results.chunk_and_vector import chunk_differences, two_questions, vector_pairs
from pipelines.results.entry import OTHER, Entry
from pipelines.results.equal_training import differences_at_equal_training
from pipelines.results.families import Models, families_of
from pipelines.results.gains import gains_of, without_untuned
from pipelines.results.pooling import pooled
from pipelines.results.trajectories import Trajectory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.results.law import Law
    from pipelines.results.noise import Noise

    Floats = NDArray[np.float64]

__all__ = [
    "Answer",
    "Claim",
    "Curve",
    "Difference",
    "Family",
    "FamilyPoint",
    "Headline",
    "Ratio",
    "headline",
    "headlines",
]

NUM_REPLICATES = 1000
CURVE_POINTS = 41
Anchor = Literal["common", "reference"]


@dataclass(frozen=True)
class Fitted:
    """A family with its laws, one a replicate."""

    models: Models
    law: Law | None
    """None where no point can be used."""

    def total(self, compute: Floats) -> Floats:
        """Training FLOPs with the autoencoder, where the language model's are ``compute``."""
        import numpy as np

        points = [one.point for one in self.models.used]
        autoencoder = np.interp(
            compute, [p.training_flops for p in points], [p.autoencoder_training_flops for p in points]
        )
        result: Floats = compute + autoencoder
        return result

    def inference(self, compute: Floats) -> Floats:
        """FLOPs per token of the models that were trained with ``compute``, between the points on a log scale."""
        import numpy as np

        points = [one.point for one in self.models.used]
        with np.errstate(divide="ignore"):
            result: Floats = np.exp(
                np.interp(
                    np.log(compute),
                    [np.log(p.training_flops) for p in points],
                    [np.log(p.inference_flops_per_token) for p in points],
                )
            )
        return result

    @property
    def has_one_size(self) -> bool:
        costs = [one.point.inference_flops_per_token for one in self.models.used]
        return bool(costs) and max(costs) <= min(costs) * 1.001


def headlines(
    rows: Iterable[Entry], trajectories: Iterable[Trajectory] = (), target: float | None = None
) -> list[Headline]:
    """A headline for each protocol among ``rows`` that have one, those with most rows first."""
    by_protocol: dict[str, list[Entry]] = {}
    for row in filter(_is_on_curves, rows):
        by_protocol.setdefault(row.protocol_hash, []).append(row)
    kept = list(trajectories)
    ordered = sorted(by_protocol.items(), key=lambda item: (-len(item[1]), item[0]))
    return [headline(group, kept, target) for _, group in ordered]


def headline(rows: Iterable[Entry], trajectories: Iterable[Trajectory] = (), target: float | None = None) -> Headline:
    """What the ``rows`` of one protocol say, and the models kept along their trainings.

    Args:
        rows: of one protocol; seeds are pooled here. Models of others are no family, and nothing can be read off rows
            without FLOPs: both are left out.
        trajectories: of the same trainings; used where the reference has one budget only.
        target: a BrierLM at which the families are compared too.

    Raises:
        ValueError: no rows that can be used, or rows of several protocols: :func:`headlines` takes those.
    """
    from pipelines.results.noise import noise_of

    rows = list(filter(_is_on_curves, rows))
    entries = without_untuned(pooled(rows))
    protocols = {entry.protocol_hash for entry in entries}
    if not protocols:
        raise ValueError("a headline is about rows of one protocol that are of a family and have known FLOPs: none is")
    if len(protocols) != 1:
        raise ValueError(f"a headline is about the rows of one protocol, not of {len(protocols)}")
    families = families_of(sorted(entries, key=lambda entry: entry.model_dump_json()), trajectories)
    noise = noise_of(families, NUM_REPLICATES)
    fitted = [Fitted(models, _law(models, noise)) for models in families]
    reference, *others = fitted
    answers = [answer for other in others for answer in _answers(other, reference, target)]
    vectors = vector_pairs(families)
    pairs = [(other.models, reference.models) for other in others]
    # One correction over both: they are read together.
    compared = differences_at_equal_training(entries, pairs + [pair for pair in vectors if pair not in pairs])
    differences = [one for one in compared if one.reference == reference.models.name]
    apart = [one for one in compared if (one.family, one.reference) in {(a.name, b.name) for a, b in vectors}]
    shown = tuple(_family(one, noise) for one in fitted)
    claim = sentences.claim(reference.models.key[0] == "token", answers, shown, entries)
    method = sentences.method(shown, noise, NUM_REPLICATES)
    command = sentences.command(shown, answers)
    gains = gains_of(rows)
    beyond = _beyond(fitted, noise)
    questions = two_questions(chunk_differences(differences, families), apart)
    said = sentences.whole(
        answers, differences, questions, claim, [*(gain.sentence for gain in gains), *beyond, method], command
    )
    return Headline(
        protocol_hash=protocols.pop(),
        reference=reference.models.name,
        families=shown,
        answers=tuple(answers),
        differences=tuple(differences),
        vectors=tuple(apart),
        questions=tuple(questions),
        claim=claim,
        method=method,
        sentences=tuple(said),
        gains=tuple(gains),
        command=command,
    )


def _is_on_curves(entry: Entry) -> bool:
    """Whether a row can be a point of its family's curve of score against compute."""
    return entry.kind != OTHER and entry.compute is not None


def _beyond(fitted: Sequence[Fitted], noise: Noise) -> list[str]:
    """What the laws say beyond their points, each sentence marked as extrapolated, and what that is worth."""
    from pipelines.results.extrapolation import back_test, meeting_of

    reference, *others = fitted
    found = [
        meeting
        for one in others
        if one.law is not None
        and reference.law is not None
        and (meeting := meeting_of(one.models, reference.models, noise, (one.law, reference.law))) is not None
    ]
    if not found:
        return []
    return [*map(extrapolated.meeting, found), extrapolated.back_test(back_test([one.models for one in fitted], noise))]


def _law(models: Models, noise: Noise) -> Law | None:
    import numpy as np

    from pipelines.results.law import fit

    if not models.used:
        return None
    compute = np.array([one.point.training_flops for one in models.used])
    return fit(compute, noise.scores[models.key], noise.covariances[models.key], noise.prior_means)


def _answers(family: Fitted, reference: Fitted, target: float | None) -> list[Answer]:
    """At the highest common score; at the reference's best where that is beyond the family; at ``target``."""
    common, beyond = _answer(family, reference, "common"), _answer(family, reference, "reference")
    misses = beyond.state == "bounded" and beyond.score != common.score
    if "single" == family.models.basis == reference.models.basis:
        # Two single points: that the weaker one misses the other's score is all there is to say.
        answers = [beyond if misses else common]
    else:
        answers = [common, beyond] if misses else [common]
    return answers if target is None else [*answers, _answer(family, reference, target)]


def _answer(family: Fitted, reference: Fitted, at: Anchor | float) -> Answer:
    """The two compared at the highest score that both reach, at the best of the reference, or at a given score."""
    import numpy as np

    names = family.models.name, reference.models.name
    basis = _basis(family.models, reference.models)
    is_target = at != "common"
    if family.law is None or reference.law is None:
        which = names[0] if family.law is None else names[1]
        nothing = sentences.no_score(which, names)
        return Answer(*names, None, None, None, None, "open", nothing, basis, is_target)
    if at == "common":
        scores = np.minimum(family.law.top, reference.law.top)
    elif at == "reference":
        scores = reference.law.top
    else:
        scores = np.full_like(reference.law.top, at)
    ours, theirs = family.law.needed(scores), reference.law.needed(scores)
    training = _ratio(ours, theirs)
    total = _ratio(_with_autoencoder(family, ours), _with_autoencoder(reference, theirs))
    sides = _side(ours), _side(theirs)
    inference = None if "above" in sides else _inference(family, reference, ours, theirs)
    state: Literal["answered", "bounded", "open"] = "answered"
    if not training.is_known:
        state = "bounded" if training.low > 0 or training.high is not None else "open"
    score = float(scores[0])
    asked: Literal["common", "reference", "target"] = "target" if isinstance(at, float) else at
    sentence = sentences.answer(
        _reach(family, sides[0]), _reach(reference, sides[1]), score, asked, training, total, inference
    )
    return Answer(*names, score, training, total, inference, state, sentence, basis, is_target)


def _with_autoencoder(family: Fitted, compute: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    import numpy as np

    # Below the cheapest model the autoencoder may have been smaller as well.
    return np.where(compute[0] > 0, family.total(compute[0]), 0.0), family.total(compute[1])


def _side(compute: tuple[Floats, Floats]) -> sentences.Side:
    if compute[1][0] == float("inf"):
        return "above"
    return "below" if compute[0][0] == 0 else "inside"


def _reach(family: Fitted, side: sentences.Side) -> sentences.Reach:
    assert family.law is not None
    points = [one.point for one in family.models.used]
    return sentences.Reach(
        name=family.models.name,
        side=side,
        cheapest=points[0].training_flops,
        dearest=points[-1].training_flops,
        dearest_total=points[-1].total_training_flops,
        has_one_size=family.has_one_size,
        is_single=family.law.low == family.law.high,
    )


def _ratio(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> Ratio:
    """The ratio of two computes, each known between two bounds in each replicate; the first replicate estimates it."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(np.isinf(theirs[1]), 0.0, ours[0] / theirs[1])
        high = np.where((theirs[0] > 0) & np.isfinite(ours[1]), ours[1] / theirs[0], np.inf)
    tail = (1.0 - CONFIDENCE) / 2.0
    # Quantiles that are themselves draws: between a number and infinity there is nothing to interpolate.
    at_least = float(np.quantile(low, tail, method="lower"))
    at_most = float(np.quantile(high, 1.0 - tail, method="higher"))
    is_known = np.isfinite(high[0]) and bool(np.isclose(low[0], high[0], rtol=1e-6))
    return Ratio(float(low[0]) if is_known else None, at_least, at_most if np.isfinite(at_most) else None)


def _inference(family: Fitted, reference: Fitted, ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> Ratio:
    """The ratio of the inference FLOPs of the models that have the score; beyond a family's cheapest model that one's
    cost stands for all."""
    import numpy as np

    assert family.law is not None
    assert reference.law is not None
    inside = [np.clip(bounds[1], law.low, law.high) for bounds, law in ((ours, family.law), (theirs, reference.law))]
    draws = family.inference(inside[0]) / reference.inference(inside[1])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = (float(value) for value in np.quantile(draws, [tail, 1.0 - tail]))
    return Ratio(float(draws[0]), low, high)


def _basis(family: Models, reference: Models) -> Literal["budgets", "trajectory", "single"]:
    if "trajectory" in (family.basis, reference.basis):
        return "trajectory"
    return "budgets" if "budgets" in (family.basis, reference.basis) else "single"


def _family(fitted: Fitted, noise: Noise) -> Family:
    kind, chunk_size, head = fitted.models.key
    points = tuple(one.point for one in fitted.models.measured)
    return Family(fitted.models.name, kind, chunk_size, head, fitted.models.basis, points, _curve(fitted, noise))


def _curve(fitted: Fitted, noise: Noise) -> Curve | None:
    import numpy as np

    law = fitted.law
    if law is None or law.low == law.high:
        return None
    compute = np.geomspace(law.low, law.high, CURVE_POINTS)
    scores = law.score(compute)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(scores, [tail, 1.0 - tail], axis=0)
    exponents = np.quantile(law.exponent, [tail, 1.0 - tail])
    limit = float(law.level[0] + law.slope[0] / law.exponent[0]) if exponents[0] > 0 and law.slope[0] > 0 else None
    return Curve(
        training_flops=tuple(compute.tolist()),
        total_training_flops=tuple(fitted.total(compute).tolist()),
        inference_flops_per_token=tuple(fitted.inference(compute).tolist()),
        score=tuple(scores[0].tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        exponent=float(law.exponent[0]),
        exponent_interval=(float(exponents[0]), float(exponents[1])),
        limit=limit,
        misfit=noise.misfit,
    )
