"""The two things that CALM changes, told apart: does the chunk pay, and does the vector?

A ``patch`` model has CALM's chunks and predicts tokens. Against the token model it differs by the chunk, and CALM
differs from it, at the same K, by the vector. Where a board has these, the two differences are what is said first.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.common.numbers import interval, signed_with_error
from pipelines.results.answers import Difference
from pipelines.results.families import Models
from pipelines.results.wording import model_name, number

CONTROL = "patch"
"""The family that shares CALM's chunks and has no vector."""


def vector_pairs(families: Sequence[Models]) -> list[tuple[Models, Models]]:
    """Each CALM family with the control of the same K, where there is one."""
    controls = {models.key[1]: models for models in families if models.key[0] == CONTROL}
    return [
        (models, controls[models.key[1]])
        for models in families
        if models.key[0] == "calm" and models.key[1] in controls
    ]


def chunk_differences(differences: Sequence[Difference], families: Sequence[Models]) -> list[Difference]:
    """Those among ``differences`` in which a control stands against a token model."""
    kinds = {models.name: models.key[0] for models in families}
    return [one for one in differences if (kinds[one.family], kinds[one.reference]) == (CONTROL, "token")]


def two_questions(chunks: Sequence[Difference], vectors: Sequence[Difference]) -> list[str]:
    """Sentences on what the chunk does and what the vector does; none on what was not compared.

    Intervals stand each by itself: not corrected for their number.
    """
    said = [f"Does the chunk pay? {_answer(chunks)}"] if chunks else []
    return said + ([f"Does the vector pay? {_answer(vectors)}"] if vectors else [])


def _answer(differences: Sequence[Difference]) -> str:
    return f"At equal training FLOPs {'; '.join(map(_in_words, differences))}."


def _in_words(found: Difference) -> str:
    name, base = model_name(found.family), model_name(found.reference)
    inference = f"{number(found.inference_ratio)} times its inference FLOPs"
    if found.is_clipped:
        return f"{name} and {base} both score 0 (clipped), {name} with {inference}"
    score = signed_with_error(found.score_difference, found.standard_error)
    between = f"95 % interval {interval(*found.interval, decimals=1, signed=True)}"
    return f"{name} scores {score} ({between}) against {base}, with {inference}"
