"""Settings of a study that the search of another one chose: what finding them took, told of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from calm_bench.frozen import Frozen, PositiveInt

if TYPE_CHECKING:
    from calm_bench.config import Experiment


class Effort(Frozen):
    """What a search spent on one kind of model."""

    trials: PositiveInt
    flops: Annotated[float, Field(ge=0)]
    """Training FLOPs of all its trials, autoencoders included, each training once."""
    model: Annotated[dict[str, Any], Field(exclude_if=lambda model: not model)] = Field(default_factory=dict)
    """Dotted path of the experiment -> the value that makes a model of this kind. One that differs in any of them, as
    with another head, was in no trial of the search."""


class TunedBy(Frozen):
    """The search of another study that chose settings of this one.

    A row whose settings, seed or kind of model differ from what stands here was not chosen by it, and tells of no
    search.
    """

    study: str
    """Name of that study."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """Seeds of its trials. A model of one of these is no fresh one: it may be what chose."""
    settings: Annotated[dict[str, Any], Field(min_length=1)]
    """Dotted path of the experiment -> the value that was chosen."""
    effort: Annotated[dict[str, Effort], Field(min_length=1)]
    """Label of a trial of this study -> what was spent on finding its settings."""

    def effort_for(self, label: str, experiment: Experiment) -> Effort | None:
        """What was spent on the settings of ``experiment``, the trial ``label``; None where this search chose none."""
        if experiment.seed in self.seeds:
            return None
        effort = self.effort.get(label)
        if effort is None or not _has(experiment, self.settings) or not _has(experiment, effort.model):
            return None
        return effort


def _has(experiment: Experiment, settings: dict[str, Any]) -> bool:
    return all(_value(experiment, path) == value for path, value in settings.items())


def _value(experiment: Experiment, path: str) -> Any:
    value: Any = experiment
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
