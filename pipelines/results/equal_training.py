"""The best models of all families at equal training FLOPs, as differences from the reference's, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pipelines.common.numbers import scientific, signed_with_error, with_error
from pipelines.results.answers import Difference
from pipelines.results.entry import Entry, compute_of
from pipelines.results.families import SAME_BUDGET, Models
from pipelines.results.holm import LEVEL, holm
from pipelines.results.pairing import RowDifference, difference
from pipelines.results.ranks import first_telling
from pipelines.results.wording import CLIPPED, model_name, number, start


def differences_at_equal_training(entries: Sequence[Entry], pairs: Sequence[tuple[Models, Models]]) -> list[Difference]:
    """For each pair of a family and its reference: their best finished rows at the reference's largest budget.

    Args:
        entries: pooled rows of one protocol, of known FLOPs.
        pairs: a pair without a row of the family at that budget has no difference.
    """
    level = [(models, base, *rows) for models, base in pairs if (rows := _rows(entries, models, base)) is not None]
    apart = [difference(row, base_row) for _, _, row, base_row in level]
    corrected = holm([one.p_value for one in apart])
    found = []
    for (models, reference, row, base), one, p_value in zip(level, apart, corrected, strict=True):
        cost, base_cost = compute_of(row), compute_of(base)
        ratios = (
            cost.training / base_cost.training,
            cost.total / base_cost.total,
            cost.inference / base_cost.inference,
        )
        who = dominance(one.value, p_value, ratios)
        names = models.name, reference.name
        is_clipped = row.brierlm == base.brierlm == 0
        if is_clipped:
            seeds = len(row.seeds) or 1, len(base.seeds) or 1
            text = clipped_difference(names, base_cost.training, *first_telling(row.parts, base.parts, seeds))
        else:
            text = difference_in_words(names, base_cost.training, one, p_value, len(level), ratios, who)
        found.append(
            Difference(
                family=models.name,
                reference=reference.name,
                score_difference=one.value,
                standard_error=one.error,
                interval=one.interval,
                is_paired=one.is_paired,
                training_ratio=ratios[0],
                total_ratio=ratios[1],
                inference_ratio=ratios[2],
                p_value=p_value,
                dominance=who,
                sentence=text,
                is_clipped=is_clipped,
            )
        )
    return found


def _rows(entries: Sequence[Entry], models: Models, reference: Models) -> tuple[Entry, Entry] | None:
    """The best row of each at the largest budget of the reference."""

    def rows(of: Models) -> list[Entry]:
        return [entry for entry in entries if (entry.kind, entry.chunk_size, entry.head) == of.key]

    budget = max(compute_of(entry).training for entry in rows(reference))
    best = [
        max(
            (row for row in rows(of) if abs(compute_of(row).training / budget - 1) <= SAME_BUDGET),
            key=lambda row: (row.brierlm, row.label),
            default=None,
        )
        for of in (models, reference)
    ]
    first, base = best
    return None if first is None or base is None else (first, base)


def dominance(
    value: float, p_value: float, ratios: tuple[float, float, float]
) -> Literal["family", "reference", "neither"]:
    """Who is better beyond chance and needs no more; ratios of training, all training and inference FLOPs."""
    _, total, inference = ratios
    if p_value > LEVEL:
        return "neither"
    if value > 0 and total <= 1.02 and inference <= 1.001:
        return "family"
    if value < 0 and total >= 0.98 and inference >= 0.999:
        return "reference"
    return "neither"


def difference_in_words(
    names: tuple[str, str],
    budget: float,
    measured: RowDifference,
    p_value: float,
    num_families: int,
    ratios: tuple[float, float, float],
    who: Literal["family", "reference", "neither"],
) -> str:
    """Two models at equal training FLOPs."""
    name, base = model_name(names[0]), model_name(names[1])
    value, error = measured.value, measured.error
    if p_value > LEVEL:
        found = f"scores {signed_with_error(value, error)} against {base}, which may be chance"
    else:
        found = f"scores {with_error(abs(value), error)} {'above' if value > 0 else 'below'} {base}"
    how = "documents paired" if measured.is_paired else "documents not paired, so the error is an upper one"
    if num_families > 1:
        p = "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
        how += f"; {p}, corrected for {num_families} comparisons"
    end = {
        "family": f"{start(name)} dominates: a higher score for no more training or inference FLOPs.",
        "reference": f"{start(base)} dominates: a higher score for no more training or inference FLOPs.",
        "neither": "Neither dominates the other in score, training and inference FLOPs together.",
    }[who]
    autoencoder = (
        f"{number(ratios[1])} times its training FLOPs with the autoencoder's and " if ratios[1] > 1.001 else ""
    )
    return (
        f"At equal training FLOPs ({scientific(budget)}, without autoencoders) {name} {found} ({how}), with "
        f"{autoencoder}{number(ratios[2])} times its inference FLOPs per token. {end}"
    )


def clipped_difference(names: tuple[str, str], budget: float, component: int, value: float, error: float) -> str:
    """Two models at equal training FLOPs whose scores are both clipped to 0, by the first component that tells.

    Args:
        component: n of Brier-n, 0 where none tells.
        value: of the first minus the second in it, with its standard error, on the scale of Brier-n.
    """
    name, base = model_name(names[0]), model_name(names[1])
    both = f"At equal training FLOPs ({scientific(budget)}) {name} and {base} both have BrierLM {CLIPPED}"
    if not component:
        return f"{both}, and no component tells the two apart: more training, or more test text, would."
    apart = with_error(100 * abs(value), 100 * error)
    return (
        f"{both}. Brier-{component}, the first component that tells them apart, is {apart} "
        f"{'higher' if value > 0 else 'lower'} (times 100) for {name}."
    )
