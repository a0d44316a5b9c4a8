"""The searches that a study consists of: one, or one for each combination of the parameters in ``search.each``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.study.config import Study
from pipelines.study.search_settings import Parameter, Search
from pipelines.study.space import Point, Scalar, grid_points, label_of


@dataclass(frozen=True)
class Stratum:
    """A combination of the parameters in ``search.each``, and the search over all others with it."""

    label: str
    """What people call it; empty where the study is one search."""
    chosen: Point
    """Value by parameter of ``search.each``."""
    search: Search

    @property
    def num_trials(self) -> int:
        """How many trials its search has, one that was tried again counted once."""
        if self.search.sampler == "grid":
            return len(grid_points(self.search))
        return self.search.num_trials or 0


def strata(search: Search) -> tuple[Stratum, ...]:
    """The searches of ``search``, in the order of the values of ``search.each``, its last parameter varying fastest."""
    if not search.each:
        return (Stratum("", {}, search),)
    outer = search.model_copy(update={"parameters": tuple(p for p in search.parameters if p.name in search.each)})
    return tuple(Stratum(label_of(outer, point, ""), point, _within(search, point)) for point in grid_points(outer))


def _within(search: Search, chosen: Point) -> Search:
    """The search over the other parameters where those of ``search.each`` have the values ``chosen``."""
    others = tuple(
        parameter.model_copy(update={"when": {}})
        for parameter in search.parameters
        if parameter.name not in search.each and _applies(parameter, chosen)
    )
    # Without anything to search over all trials would be one.
    sampler = search.sampler if others else "grid"
    return search.model_copy(update={"parameters": others, "each": (), "sampler": sampler})


def _applies(parameter: Parameter, chosen: Mapping[str, Scalar]) -> bool:
    return all(chosen[name] in values for name, values in parameter.when.items())


def num_final_trials(study: Study) -> int:
    """The most trainings that ``study.final`` asks for; selections that coincide are trained once."""
    if study.final is None:
        return 0
    return len(strata(study.search)) * (study.final.top + study.final.untuned) * len(study.final.seeds)


def num_trials(study: Study) -> int:
    """How many trials ``study`` has, the final ones among them."""
    return sum(stratum.num_trials for stratum in strata(study.search)) + num_final_trials(study)
