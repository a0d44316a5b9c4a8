"""The best of a search's trials, to be trained again with fresh seeds and scored on text that chose none of them.

The best of many trials owes part of its score to chance, so the score it was chosen by is no estimate of its quality.
A fresh training on fresh text is one, and the same for the settings that tuning began from; the difference of the two
is what tuning gained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.study.config import Final, Study
from pipelines.study.search_settings import Objective, Parameter, Search
from pipelines.study.space import settings_at
from pipelines.study.strata import Stratum, strata
from pipelines.study.trial import TrialOutcome

UNTUNED = "untuned"


@dataclass(frozen=True)
class Selected:
    """Settings that are trained again."""

    label: str
    settings: Mapping[str, Any]
    """By dotted path of the experiment."""
    stratum: str
    """Label of the search that found them."""
    role: Literal["selected", "untuned"]


def select(study: Study, outcomes: Sequence[TrialOutcome]) -> list[Selected]:
    """The best trials of each search in ``study``, and what each began from if ``study.final`` wants that too.

    Settings that two of one search share are taken once. A search without a complete trial that keeps its constraints
    has no best one.
    """
    assert study.final is not None
    found: list[Selected] = []
    for stratum in strata(study.search):
        trials = [one for one in outcomes if one.role == "search" and one.stratum == stratum.label]
        best = best_trials(trials, study.search.objectives, study.final.top)
        chosen = [Selected(one.label, dict(one.settings), stratum.label, "selected") for one in best]
        if study.final.untuned:
            chosen.append(_untuned(study.search, stratum))
        found += [one for index, one in enumerate(chosen) if one.settings not in [o.settings for o in chosen[:index]]]
    return found


def _untuned(search: Search, stratum: Stratum) -> Selected:
    label = f"{stratum.label}, {UNTUNED}" if stratum.label else UNTUNED
    return Selected(label, settings_at(search, stratum.chosen), stratum.label, "untuned")


def best_trials(trials: Sequence[TrialOutcome], objectives: Sequence[Objective], top: int) -> list[TrialOutcome]:
    """The ``top`` complete trials that keep all constraints, best first by the first objective.

    With several objectives only those count that no other trial beats in one without being beaten in another.
    """
    valid = [one for one in trials if one.state == "complete" and not one.violations]
    signs = [1.0 if objective.direction == "maximize" else -1.0 for objective in objectives]
    points = [tuple(sign * value for sign, value in zip(signs, one.values, strict=True)) for one in valid]

    def is_beaten(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(theirs >= ours for theirs, ours in zip(other, point, strict=True))
            for other in points
        )

    front = [(point, one) for point, one in zip(points, valid, strict=True) if not is_beaten(point)]
    # A single objective has one value at its front, and the next best are wanted as well.
    ranked = front if len(objectives) > 1 else list(zip(points, valid, strict=True))
    ranked.sort(key=lambda pair: (tuple(-value for value in pair[0]), pair[1].number))
    return [one for _, one in ranked[:top]]


def final_search(selected: Sequence[Selected], final: Final) -> Search:
    """The grid of all final trainings: everything selected, with every seed."""
    choices = {one.label: dict(one.settings) for one in selected}
    parameters = (Parameter(name="selected", choices=choices), Parameter(name="seed", values=final.seeds))
    return Search(parameters=parameters, fixed={"evaluation.split": final.split})
