"""One column of a leaderboard: what it shows, how, and what it is called elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.common.numbers import (
    MISSING,
    clipped_with_error,
    compact,
    duration,
    floored_percent,
    printable,
    scientific,
    with_error,
)

if TYPE_CHECKING:
    from pipelines.results.entry import Entry
    from pipelines.study.row import Better, Form

FORMS: Mapping[Form, Callable[[float], str]] = {
    "score": lambda value: f"{value:.2f}",
    "flops": scientific,
    "count": compact,
    "share": lambda percent: floored_percent(percent / 100),
    "duration": duration,
    "whole": lambda value: f"{value:.0f}",
    "setting": lambda value: f"{value:.6g}",
}
"""How a number is written that has no error."""

Visibility = Literal["usual", "differing", "asked"]
"""Where a column is shown unasked: ``usual`` everywhere; ``differing`` where rows differ in it; ``asked`` nowhere."""


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str
    """By which it is asked for; a field of the row where it shows one."""
    heading: str
    """In narrow tables, on several lines."""
    read: Callable[[Entry], float | str | None]
    """The value as files and MLflow hold it, None where a row has none."""
    form: Form = "score"
    read_error: Callable[[Entry], float | None] = lambda _: None
    """One standard error of what ``read`` gives."""
    better: Better | None = None
    scale: Callable[[Entry], float] = lambda _: 1.0
    """Times this a number is shown: 100 puts Brier-n on the scale of BrierLM, and shares in percent."""
    calm_only: bool = False
    """Nothing is shown for a token model, which has no autoencoder and no head."""
    clipped: bool = False
    """A value of 0 says that it could not be lower, and is shown as such."""
    table: Visibility = "asked"
    """In tables of text."""
    page: Visibility | None = None
    """On the report's page; None leaves it out there."""
    name: str = ""
    """On the page, where it is not the heading on one line."""
    unit: str = ""
    """Behind the name, on the page."""
    metric: str = ""
    """In MLflow, which has a chart for each name and a section for each prefix; empty for columns that are not sent."""
    error_metric: str = ""

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("-\n", "").replace("\n", " ")

    @property
    def is_text(self) -> bool:
        return self.form == "text"

    @property
    def justify(self) -> Literal["left", "right"]:
        return "left" if self.is_text and self.key != "seeds" else "right"

    def value(self, entry: Entry) -> float | str | None:
        """The value on the scale that is shown, by which rows are sorted and filtered; None where a row has none."""
        found = None if self.calm_only and entry.kind != "calm" else self.read(entry)
        return found if found is None or isinstance(found, str) else self.scale(entry) * float(found)

    def error(self, entry: Entry) -> float | None:
        """One standard error of :meth:`value`."""
        found = self.read_error(entry)
        return None if found is None else self.scale(entry) * found

    def cell(self, entry: Entry) -> str:
        """The value as text for people, with its error."""
        value, error = self.value(entry), self.error(entry)
        if value is None or isinstance(value, str):
            return printable(value or "") or MISSING
        if error is None:
            return FORMS[self.form](value)
        return clipped_with_error(value, error) if self.clipped else with_error(value, error)


def times_hundred(_: Entry) -> float:
    """The scale of what is shown in percent, or as BrierLM is."""
    return 100.0
