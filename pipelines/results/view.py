"""Which rows and columns of a leaderboard are shown, in which order, and whose front is marked."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from calm_bench.overrides import ConfigurationError
from pipelines.results.column import Column
from pipelines.results.columns import INFERENCE, MODEL, SCORE, TRAINING, columns_of, find_column, usual_columns
from pipelines.results.pareto import pareto_front, pareto_front_within_errors
from pipelines.results.ranks import SIGNIFICANT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.results.entry import Entry
    from pipelines.results.leaderboard import Group

    Floats = NDArray[np.float64]

_COMPARED = re.compile(r"^\s*([^<>=!]+?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Filter:
    """``K=4``, ``brierlm>4``, ``head=energy``, ``model=K=4*``: what rows must fulfil to be shown.

    Numbers are compared on the scale that the table shows; a row without the number fulfils nothing. Texts know ``=``
    and ``!=``, and ``*`` stands for anything; a row without the text has the empty one.
    """

    column: Column
    operator: str
    wanted: float | str

    @classmethod
    def parse(cls, text: str, columns: Mapping[str, Column]) -> Self:
        """Read a condition.

        Raises:
            ConfigurationError: it is none, or no such column is known, or text is compared by size.
        """
        found = _COMPARED.match(text)
        if not found:
            raise ConfigurationError(
                f"{text!r} is no condition: write a column, one of = != < <= > >=, and a value, as K=4 or 'brierlm>4'"
            )
        name, sign, value = found.groups()
        column = find_column(name, columns)
        if column.is_text:
            if sign not in ("=", "!="):
                raise ConfigurationError(f"{text!r}: {column.key} is text, which is compared by = and != only")
            return cls(column, sign, value)
        try:
            number = float(value)
        except ValueError:
            raise ConfigurationError(f"{text!r}: {column.key} is a number, and {value!r} is none") from None
        if math.isnan(number):
            raise ConfigurationError(f"{text!r}: nothing compares with nan")
        return cls(column, sign, number)

    def holds(self, entry: Entry) -> bool:
        value = self.column.value(entry)
        if isinstance(self.wanted, str):
            first, *parts = map(re.escape, self.wanted.split("*"))
            # What is found first is found for good: to look for it elsewhere again takes for ever where stars are many.
            rest = "".join(f"(?>.*?{part})" for part in parts[:-1]) + f".*{parts[-1]}" if parts else ""
            pattern = first + rest
            is_equal = re.fullmatch(pattern, str(value or ""), re.DOTALL) is not None
            return is_equal == (self.operator == "=")
        return value is not None and _OPERATORS[self.operator](float(value), self.wanted)


@dataclass(frozen=True)
class View:
    """What is shown. All unset: every column that differs, best score first, both costs' fronts against BrierLM."""

    columns: tuple[Column, ...] | None = None
    sort: tuple[Column, Literal["asc", "desc"]] | None = None
    pareto: tuple[Column, Column] | None = None
    within_errors: bool = False
    """Count a row as beaten only where the other is better beyond the errors."""

    @classmethod
    def parse(
        cls,
        entries: Sequence[Entry],
        columns: str | None = None,
        sort: str | None = None,
        pareto: str | None = None,
        within_errors: bool = False,
    ) -> Self:
        """From what the command line gives: ``a,b,c``, ``column[:asc|desc]``, ``x,y``.

        Raises:
            ConfigurationError: a column is not known, or lacks a direction in which it is better.
        """
        known = columns_of(entries)
        chosen = None if columns is None else tuple(find_column(name, known) for name in columns.split(",") if name)
        return cls(
            chosen or None,
            None if sort is None else _sort(sort, known),
            None if pareto is None else _pair(pareto, known),
            within_errors,
        )

    def shown_columns(self, group: Group) -> list[Column]:
        """The model first, then what was asked for, or all that people compare models by."""
        if self.columns is not None:
            return [MODEL, *(column for column in self.columns if column is not MODEL)]
        usual = usual_columns(group.entries)
        keys = {column.key for column in usual}
        asked = [*(self.pareto or ()), *([self.sort[0]] if self.sort else [])]
        return usual + list({column.key: column for column in asked if column.key not in keys}.values())

    def order(self, group: Group) -> list[tuple[int, Entry]]:
        """Ranks and rows as they are to be shown; rows without a value come last."""
        rows = list(zip(group.ranks, group.entries, strict=True))
        if self.sort is None:
            return rows
        column, direction = self.sort
        known = [row for row in rows if column.value(row[1]) is not None]
        rest = [row for row in rows if column.value(row[1]) is None]
        # Stable, so rows that are level in this column stay in the order of their scores.
        return sorted(known, key=lambda row: column.value(row[1]), reverse=direction == "desc") + rest  # type: ignore[arg-type,return-value]

    def fronts(self, group: Group) -> dict[str, set[Entry]]:
        """By the key of the column that carries its marks, the rows on each front."""
        pairs = [(TRAINING, SCORE), (INFERENCE, SCORE)] if self.pareto is None else [self.pareto]
        return {pair[0].key: set(front_of(group, *pair, within_errors=self.within_errors)) for pair in pairs}


def filtered(entries: Sequence[Entry], conditions: Sequence[str]) -> list[Entry]:
    """The rows that fulfil all ``conditions`` (:class:`Filter`).

    Raises:
        ConfigurationError: a condition cannot be read.
    """
    known = columns_of(entries)
    parsed = [Filter.parse(condition, known) for condition in conditions]
    return [entry for entry in entries if all(condition.holds(entry) for condition in parsed)]


def front_of(group: Group, x: Column, y: Column, within_errors: bool = False) -> list[Entry]:
    """The rows of ``group`` that none beats in the two columns, each in its better direction, in the group's order."""
    import numpy as np

    entries = group.entries
    signs = [1.0 if column.better == "high" else -1.0 for column in (x, y)]
    values = [[column.value(entry) for entry in entries] for column in (x, y)]
    goodness = [[None if v is None else sign * float(v) for v in row] for sign, row in zip(signs, values, strict=True)]
    if not within_errors:
        flags = pareto_front([(None if a is None else -a, b) for a, b in zip(*goodness, strict=True)])
    else:
        arrays = [np.array([np.nan if v is None else v for v in row]) for row in goodness]
        flags = pareto_front_within_errors(arrays, [_margins(group, column) for column in (x, y)])
    return [entry for entry, flag in zip(entries, flags, strict=True) if flag]


def _margins(group: Group, column: Column) -> Floats:
    """``[n, n]`` how far values of a column must be apart to differ, BrierLM's with documents paired where they can."""
    import numpy as np

    if column is SCORE:
        return group.differences.margins
    own = np.array([column.error(entry) or 0.0 for entry in group.entries])
    result: Floats = SIGNIFICANT * np.hypot(own[:, None], own[None, :])
    return result


def _sort(text: str, known: Mapping[str, Column]) -> tuple[Column, Literal["asc", "desc"]]:
    name, _, direction = text.partition(":")
    column = find_column(name, known)
    if direction in ("asc", "desc"):
        return column, "asc" if direction == "asc" else "desc"
    if direction:
        raise ConfigurationError(f"--sort {text}: after the colon stands asc or desc, not {direction!r}")
    return column, "desc" if column.better == "high" else "asc"


def _pair(text: str, known: Mapping[str, Column]) -> tuple[Column, Column]:
    names = [name for name in text.split(",") if name.strip()]
    if len(names) != 2:
        raise ConfigurationError(f"--pareto {text}: two columns are needed, such as total_training_flops,brierlm")
    first, second = (find_column(name, known) for name in names)
    for column in (first, second):
        if column.better is None:
            directed = [key for key, one in known.items() if one.better]
            raise ConfigurationError(
                f"--pareto: {column.key} has no better direction; these have one: {', '.join(directed)}"
            )
    return first, second
