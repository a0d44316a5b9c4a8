"""The file ``trials.json`` of a study: what it consists of, for people and for tools without Optuna.

A stage is listed there before it is begun, so whoever reads the file knows which stages the study needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from calm_bench.atomic import write_json
from calm_bench.frozen import Frozen
from pipelines.common.record_file import RecordError, read_json, validated
from pipelines.store.refs import StageRef
from pipelines.study.trial import TrialRole

if TYPE_CHECKING:
    from pipelines.study.trial import TrialOutcome

TRIALS_FILE = "trials.json"
EARLIER_FILE = "earlier.json"
"""Names of stages of the final trials that an earlier run listed, while it is not known which ones are wanted now."""
_REMEDY = "run the study again, which writes it anew, or remove its folder"

RecordedState = Literal["open", "complete", "failed", "invalid", "pruned"]
"""``open``: the trial has not ended. The others are those of :data:`pipelines.study.trial.TrialState`."""


class TrialRecord(Frozen):
    """One trial of a study as the file lists it."""

    number: int
    label: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted path of the experiment, as the trial set them over the study's base experiment."""
    state: RecordedState
    error: str | None = None
    values: tuple[int | float, ...] = ()
    """Objectives of a complete trial, in the order of ``search.objectives``."""
    violations: tuple[str, ...] = ()
    """The constraints of the search that a complete trial breaks, each with the value found."""
    role: Annotated[TrialRole, Field(exclude_if=lambda role: role == "search")] = "search"
    stratum: Annotated[str, Field(exclude_if=lambda label: not label)] = ""
    """Label of the search that it belongs to, or whose best it is; empty where the study is one search."""
    stages: dict[str, str] = Field(default_factory=dict)
    """Identities by kind; none for an invalid trial."""

    @classmethod
    def of(cls, outcome: TrialOutcome, state: RecordedState) -> TrialRecord:
        """The record of a trial that has come as far as ``outcome`` says."""
        stages = outcome.graph.stages if outcome.graph else ()
        return cls(
            number=outcome.number,
            label=outcome.label,
            settings=dict(outcome.settings),
            state=state,
            error=outcome.error,
            values=outcome.values,
            violations=outcome.violations,
            role=outcome.role,
            stratum=outcome.stratum,
            stages={stage.kind: stage.identity for stage in stages},
        )

    @property
    def refs(self) -> Iterator[StageRef]:
        """The trial's stages; those whose names would lead out of the store are left out."""
        found = (StageRef(kind, identity) for kind, identity in self.stages.items())
        return (ref for ref in found if ref.is_plain)


_TRIALS = TypeAdapter(tuple[TrialRecord, ...])
_NAMES = TypeAdapter(tuple[str, ...])


def has_begun(folder: Path) -> bool:
    """Whether the study in ``folder`` has begun, so that its trials are listed."""
    return (folder / TRIALS_FILE).is_file()


def load_trials(folder: Path) -> tuple[TrialRecord, ...]:
    """The trials of the study in ``folder``, by number.

    Raises:
        FileNotFoundError: the study has not begun.
        RecordError: the file is damaged, or a newer version wrote it.
    """
    path = folder / TRIALS_FILE
    return validated(_TRIALS, read_json(path, _REMEDY), path, _REMEDY)


def save_trials(folder: Path, trials: Sequence[TrialRecord]) -> None:
    """Write the trials of the study in ``folder``, whole or not at all."""
    write_json(folder / TRIALS_FILE, _TRIALS.dump_python(tuple(trials)))


def keep_earlier(folder: Path) -> None:
    """Let the stages of the final trials that the study in ``folder`` lists be needed until :func:`forget_earlier`.

    To be called by a driver before it lists its own trials: final ones are known once the search has ended, and are
    mostly the same again.
    """
    try:
        trials = load_trials(folder)
    except (FileNotFoundError, RecordError):
        return
    if found := {ref.name for ref in refs_of(trial for trial in trials if trial.role != "search")}:
        write_json(folder / EARLIER_FILE, sorted(found | {ref.name for ref in earlier_refs(folder)}))


def earlier_refs(folder: Path) -> frozenset[StageRef]:
    """The stages that :func:`keep_earlier` noted; none where nothing is noted, or it cannot be read."""
    try:
        names = _NAMES.validate_python(read_json(folder / EARLIER_FILE, _REMEDY))
    except (OSError, RecordError, ValidationError):
        return frozenset()
    return frozenset(ref for ref in map(StageRef.parse, names) if ref.is_plain)


def forget_earlier(folder: Path) -> None:
    """Take back :func:`keep_earlier`, once the study lists the final trials of today."""
    if earlier_refs(folder):
        # Not removed: what a store elsewhere has of a study is replaced and never deleted.
        write_json(folder / EARLIER_FILE, [])


def refs_of(trials: Iterable[TrialRecord]) -> frozenset[StageRef]:
    """The stages of all ``trials``."""
    return frozenset(ref for trial in trials for ref in trial.refs)
