"""Columns that stand for what rows bring along: tasks, measures of kinds of stages, settings that a search set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pipelines.common.numbers import printable, with_error
from pipelines.results.column import FORMS, Column, times_hundred

if TYPE_CHECKING:
    from evals.task_score import TaskScore
    from pipelines.results.entry import Entry, Scalar

PERCENTAGES = frozenset({"acc", "acc_norm", "best_acc", "exact_match"})


def measures(entries: Iterable[Entry]) -> list[Column]:
    """A column for every measure that a row has, described by the first row that has it."""
    found = {measure.key: measure for entry in reversed(list(entries)) for measure in entry.measures}
    return [
        Column(
            key,
            printable(one.heading or key),
            lambda entry, key=key: _measured(entry, key, "value"),  # type: ignore[misc]
            one.form,
            lambda entry, key=key: _measured(entry, key, "standard_error"),  # type: ignore[misc]
            one.better,
            times_hundred if one.form == "share" else lambda _: 1.0,
            table="usual",
            page="usual",
            metric=key,
            error_metric=f"error/{key}",
        )
        for key, one in sorted(found.items())
    ]


def _measured(entry: Entry, key: str, field: Literal["value", "standard_error"]) -> float | None:
    found: float | None = next((getattr(one, field) for one in entry.measures if one.key == key), None)
    return found


def searched(entries: Iterable[Entry]) -> list[Column]:
    """A column for every setting that a search set, by its dotted path; the model's label says most of them already."""
    found: dict[str, list[Scalar]] = {}
    for entry in entries:
        for path, value in entry.settings:
            found.setdefault(path, []).append(value)
    return [
        Column(
            path,
            printable(path.replace(".", ".\n")),
            lambda entry, path=path, as_text=as_text: _setting(entry, path, as_text),  # type: ignore[misc]
            "text" if as_text else "setting",
        )
        for path, values in sorted(found.items())
        for as_text in (not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values),)
    ]


def _setting(entry: Entry, path: str, as_text: bool) -> float | str | None:
    value = dict(entry.settings).get(path)
    if value is None or not as_text:
        return value
    # Truth as it is written on the command line.
    return str(value).lower() if isinstance(value, bool) else str(value)


def tasks(entries: Iterable[Entry]) -> list[Column]:
    """A column for every task that a row was scored on; a task under several protocols has a column for each."""
    scores = [score for entry in entries for score in entry.tasks]
    found = {(score.name, score.protocol_hash): score for score in scores}
    several = {name for name, count in Counter(name for name, _ in found).items() if count > 1}
    return [_task(*key, key[0] in several, found[key].higher_is_better) for key in sorted(found)]


def _task(name: str, protocol: str, is_one_of_several: bool, higher_is_better: bool | None) -> Column:
    def score(entry: Entry) -> TaskScore | None:
        return next((one for one in entry.tasks if (one.name, one.protocol_hash) == (name, protocol)), None)

    def scale(entry: Entry) -> float:
        found = score(entry)
        return 1.0 if found is None else _scale(found)

    metric = "_".join(name.split())
    return Column(
        name + (f" {protocol[:6]}" if is_one_of_several else ""),
        printable(name).replace(" ", "\n") + (f"\n{protocol[:6]}" if is_one_of_several else ""),
        lambda entry: getattr(score(entry), "value", None),
        read_error=lambda entry: getattr(score(entry), "standard_error", None),
        better="low" if higher_is_better is False else "high",
        scale=scale,
        table="usual",
        page="usual",
        name=printable(name) + (f" ({protocol[:6]})" if is_one_of_several else ""),
        unit="task",
        metric=f"task/{metric}",
        error_metric=f"error/{metric}",
    )


def task_value(score: TaskScore) -> str:
    """Accuracies times 100 as the leaderboard shows scores; other metrics as they are."""
    value = _scale(score) * score.value
    if score.standard_error is None:
        return FORMS["score"](value)
    return with_error(value, _scale(score) * score.standard_error)


def _scale(score: TaskScore) -> float:
    return 100.0 if score.metric in PERCENTAGES else 1.0
