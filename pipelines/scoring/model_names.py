"""Scored models by what people type.

``[STUDY/]LABEL[@SEED]``, ``STUDY#TRIAL``, ``#TRIAL`` or ``[STUDY/]best``, where STUDY is a study's name, its folder's
or the beginning of that. A label means all seeds of it, however they came: from several studies, or because the seed
was searched.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import label_without_seed
from pipelines.store.study_names import short_names, studies_called

BEST = "best"
_SEED = re.compile(r"(.*)@(-?\d+)", re.DOTALL)
_TRIAL = re.compile(r"(.*)#(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Scored:
    """A row, and the folder of the study that has it."""

    folder: Path
    entry: Entry


class ModelNames:
    """The models on the leaderboards of a store, by name."""

    def __init__(self, boards: Mapping[Path, Leaderboard]) -> None:
        self._rows = [Scored(folder, entry) for folder, board in boards.items() for entry in board]
        self._folders = list(boards)

    def find(self, name: str) -> list[Scored]:
        """What ``name`` means: one row for each model, in the order of seeds; nothing where it means nothing."""
        for reading in _readings(name):
            for rows, rest in self._within_studies(reading.name):
                if found := _distinct(_chosen(rest, reading.seed, rows)):
                    return found
        return []

    def one(self, name: str) -> Scored | None:
        """The one model that ``name`` means; None where it means nothing.

        Raises:
            ConfigurationError: it means several; names each so that it can be typed.
        """
        found = self.find(name)
        if len(found) > 1:
            listed = ", ".join(shlex.quote(self.address(one)) for one in found)
            raise ConfigurationError(f"{name!r} means {len(found)} models; give one of these names: {listed}")
        return found[0] if found else None

    def seeds(self, name: str) -> list[Scored]:
        """The models that ``name`` means, which differ by their seeds alone.

        Raises:
            ConfigurationError: they differ in more; names each so that it can be typed.
        """
        found = self.find(name)
        if len({(one.entry.configuration or one.entry.model_identity) for one in found}) > 1:
            self.one(name)
        return found

    def address(self, wanted: Scored) -> str:
        """A name that means this model alone, the shortest of those in use."""
        entry, study = wanted.entry, short_names(self._folders)[wanted.folder]
        label, seed = label_without_seed(entry), entry.seed
        names = (f"{label}@{seed}", f"{study}/{label}", f"{study}/{label}@{seed}", entry.label)
        for name in names:
            found = self.find(name)
            if [one.entry.model_identity for one in found] == [entry.model_identity]:
                return name
        return f"{study}#{entry.trial}"

    def unknown(self, name: str) -> str:
        """What to say where ``name`` means nothing: the nearest name."""
        known = sorted({f"{one.entry.study}/{one.entry.label}" for one in self._rows})
        return did_you_mean(name, known) if known else ""

    def _within_studies(self, name: str) -> Iterator[tuple[Sequence[Scored], str]]:
        """``name`` as a label of any study, then as one of a study that stands before a slash or a ``#``."""
        yield self._rows, name
        for index, sign in enumerate(name):
            if sign in "/#" and (folders := studies_called(name[:index], self._folders)):
                yield [one for one in self._rows if one.folder in folders], name[index + (sign == "/") :]


@dataclass(frozen=True)
class _Reading:
    name: str
    seed: int | None


def _readings(name: str) -> Iterator[_Reading]:
    """``name`` as it stands, then with a seed at its end: labels may hold an ``@`` of their own."""
    yield _Reading(name, None)
    if found := _SEED.fullmatch(name):
        yield _Reading(found[1], int(found[2]))


def _chosen(name: str, seed: int | None, rows: Sequence[Scored]) -> list[Scored]:
    """The ``rows`` called ``name``: by label, by label without its seed, by number, or the best."""
    rows = [one for one in rows if seed is None or one.entry.seed == seed]
    ways: tuple[Callable[[Entry], bool], ...] = (
        lambda entry: entry.label == name,
        lambda entry: label_without_seed(entry) == name,
        lambda entry: f"#{entry.trial}" == name,
    )
    for way in ways:
        if found := [one for one in rows if way(one.entry)]:
            return found
    return _best(rows) if name == BEST else []


def _best(rows: Iterable[Scored]) -> list[Scored]:
    """The highest score; one of each protocol, as scores of several are not compared."""
    best: dict[str, Scored] = {}

    def order(one: Scored) -> tuple[float, float, str]:
        cost = one.entry.total_training_flops
        return -one.entry.brierlm, math.inf if cost is None else cost, one.folder.name

    for one in sorted(rows, key=order):
        best.setdefault(one.entry.protocol_hash, one)
    return list(best.values())


def _distinct(rows: Iterable[Scored]) -> list[Scored]:
    by_model: dict[str, Scored] = {}
    for one in sorted(rows, key=lambda one: (one.entry.seed, one.folder.name)):
        by_model.setdefault(one.entry.model_identity, one)
    return list(by_model.values())


def trial_named(name: str, folders: Iterable[Path]) -> tuple[Path, int] | None:
    """The study's folder and the number in ``STUDY#TRIAL``; None where ``name`` is written otherwise."""
    found = _TRIAL.fullmatch(name)
    chosen = studies_called(found[1], folders) if found else []
    return (chosen[0], int(found[2])) if found and len(chosen) == 1 else None
