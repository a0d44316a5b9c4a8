"""The rows of a study: where its best trials were trained again these alone, and each with what finding it took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipelines.results.entry import Entry, entry_from
from pipelines.study.config import Study
from pipelines.study.row import Measure
from pipelines.study.stage_kind import kind_or_none
from pipelines.study.trial import TrialOutcome
from pipelines.study.tuned_by import Effort

SEARCH_COST = ("search_trials", "search_flops")
"""Keys of the measures that say what finding a row's settings took."""


def rows_of(outcomes: Iterable[TrialOutcome], study: Study) -> list[Entry]:
    """The rows of a study's complete trials. Once there are final ones, those of the search are no rows any more:
    their scores chose among them."""
    outcomes = list(outcomes)
    complete = [one for one in outcomes if one.state == "complete"]
    final = [one for one in complete if one.role != "search"]
    shown = final or complete
    rows = [entry_from(one, study) for one in shown]
    efforts = [_effort(one, outcomes) if final else _effort_elsewhere(one, study) for one in shown]
    return [
        row.model_copy(update={"measures": (*row.measures, *_search_cost(effort))})
        for row, effort in zip(rows, efforts, strict=True)
    ]


def ranked(rows: Iterable[Entry]) -> list[Entry]:
    """Of the rows of all trials those of a leaderboard: without a study's search trials once it has final ones."""
    rows = list(rows)
    roles = defaultdict(set)
    for row in rows:
        roles[row.study, row.study_identity].add(row.role)
    return [row for row in rows if row.role != "search" or roles[row.study, row.study_identity] == {"search"}]


def with_search_cost(row: Entry, published: Entry | None) -> Entry:
    """``row`` of a trial by itself, with what its search cost: the study's leaderboard says it, which had all trials.

    Args:
        published: row of the trial on that leaderboard; None, or of another model, where it was not on it.
    """
    if published is None or published.model_identity != row.model_identity:
        return row
    known = {measure.key for measure in row.measures}
    cost = [one for one in published.measures if one.key in SEARCH_COST and one.key not in known]
    return row.model_copy(update={"measures": (*row.measures, *cost)})


def _effort(final: TrialOutcome, outcomes: Sequence[TrialOutcome]) -> Effort | None:
    """What was tried to find a final trial's settings; None for those that the search began from."""
    if final.role != "selected":
        return None
    tried = [one for one in outcomes if one.role == "search" and one.stratum == final.stratum]
    return Effort(trials=len(tried), flops=search_flops(tried))


def _effort_elsewhere(outcome: TrialOutcome, study: Study) -> Effort | None:
    """What the search of another study tried to find a trial's settings; None where none did."""
    if study.tuned_by is None or outcome.experiment is None:
        return None
    return study.tuned_by.effort_for(outcome.label, outcome.experiment)


def _search_cost(effort: Effort | None) -> tuple[Measure, ...]:
    if effort is None:
        return ()
    trials = float(effort.trials)
    told = "settings that a search compared, on validation text and with other seeds, to find the row's own."
    return (
        Measure(key=SEARCH_COST[0], value=trials, form="whole", heading="Trials\ntried", description=told),
        Measure(key=SEARCH_COST[1], value=effort.flops, form="flops", heading="Search\nFLOPs", better="low"),
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
