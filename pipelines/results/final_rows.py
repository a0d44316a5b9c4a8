"""The rows of a study whose best trials were trained again: these alone, with what was spent on finding them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.results.entry import Entry, entry_from
from pipelines.study.config import Study
from pipelines.study.row import Measure
from pipelines.study.stage_kind import kind_or_none
from pipelines.study.trial import TrialOutcome


def rows_of(outcomes: Iterable[TrialOutcome], study: Study) -> list[Entry]:
    """The rows of a study's complete trials. Once there are final ones, those of the search are no rows any more:
    their scores chose among them."""
    outcomes = list(outcomes)
    complete = [one for one in outcomes if one.state == "complete"]
    final = [one for one in complete if one.role != "search"]
    rows = [entry_from(one, study) for one in final or complete]
    if not final:
        return rows
    return [
        row.model_copy(update={"measures": (*row.measures, *_search_cost(one, outcomes))})
        for row, one in zip(rows, final, strict=True)
    ]


def _search_cost(final: TrialOutcome, outcomes: Sequence[TrialOutcome]) -> tuple[Measure, ...]:
    """What was tried to find a final trial's settings: none for those that the search began from."""
    if final.role != "selected":
        return ()
    tried = [one for one in outcomes if one.role == "search" and one.stratum == final.stratum]
    spent = search_flops(tried)
    return (
        Measure(key="search_trials", value=float(len(tried)), form="whole", heading="Trials\ntried"),
        Measure(key="search_flops", value=spent, form="flops", heading="Search\nFLOPs", better="low"),
    )


def search_flops(tried: Iterable[TrialOutcome]) -> float:
    """Training FLOPs of all trainings that the trials asked for, each once; one that was stopped counts in full."""
    trainings: dict[str, float] = {}
    for outcome in tried:
        if outcome.graph is None or "tokens" not in outcome.results:
            continue
        vocab_size = int(outcome.results["tokens"]["vocab_size"])
        for stage in outcome.graph.stages:
            if (kind := kind_or_none(stage.kind)) is not None:
                trainings[stage.identity] = kind.flops(stage, vocab_size)
    return sum(trainings.values())
