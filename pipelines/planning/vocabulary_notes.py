"""What prices say of vocabularies whose size is not known yet, in words."""

from __future__ import annotations

from pipelines.common.numbers import printable
from pipelines.planning.plan import Plan
from pipelines.study.price import BYTES_VOCABULARY

NAMED = 3
"""Trials of which the labels are told."""


def vocabulary_notes(plan: Plan) -> list[str]:
    """A sentence for each thing that prices take for granted of vocabularies."""
    notes = []
    if bounds := plan.vocabulary_bounds:
        most = " or ".join(f"{size:,}" for size in bounds)
        lengths = "" if plan.budget is None else ", and lengths follow from the budget then"
        notes.append(
            f"How many entries a BPE finds is known when it is trained: prices are for at most {most}{lengths}."
        )
    if labels := plan.for_fewest_words:
        others = " and others" if len(labels) > NAMED else ""
        notes.append(
            f"The budget of {', '.join(map(printable, labels[:NAMED]))}{others} does not pay for all the entries that "
            f"a BPE may get: prices are for {BYTES_VOCABULARY}, and whether it pays for those that are found is known "
            "when it is trained."
        )
    notes += [
        f"The tokenizer {printable(name)} is not in the hub's cache here: prices take it to have {size:,} tokens, as "
        "its name or tokens.vocab_size says."
        for name, size in plan.out_of_sight
    ]
    return notes
