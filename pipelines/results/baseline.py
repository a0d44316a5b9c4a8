"""A leaderboard against an older one: what got better, what got worse, and what the errors leave open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.common.numbers import clipped_with_error, printable, with_error
from pipelines.common.tables import plain_table
from pipelines.results.entry import Entry
from pipelines.results.holm import LEVEL
from pipelines.results.pairing import RowDifference, difference

if TYPE_CHECKING:
    from rich.console import RenderableType

HASH_DIGITS = 8
"""Digits shown of a protocol's 16, so that a row fits on a line of 80."""

Verdict = Literal["better", "worse", "neither", "new", "gone"]


@dataclass(frozen=True)
class Change:
    """A row and its counterpart in the older leaderboard."""

    label: str
    protocol_hash: str
    verdict: Verdict
    before: Entry | None
    after: Entry | None

    @property
    def difference(self) -> RowDifference | None:
        """BrierLM after minus before; None where one of the two is missing."""
        return None if self.before is None or self.after is None else difference(self.after, self.before)


def compare_boards(before: Iterable[Entry], after: Iterable[Entry]) -> list[Change]:
    """Every row of either leaderboard, matched by protocol, study, label and seeds; best score first.

    Rows under different protocols are never compared: such a row is ``gone`` in one and ``new`` in the other. Equal
    numbers are ``neither``; a difference counts from the 5 % level on, with documents paired where both rows hold their
    scores; else the joint error is an upper one, as both were scored on the same text.
    """
    old, new = ({_key(entry): entry for entry in entries} for entries in (before, after))
    changes = [_change(key, old.get(key), new.get(key)) for key in old.keys() | new.keys()]
    return sorted(changes, key=lambda change: (-_score(change), change.label))


def changes_table(changes: Sequence[Change]) -> RenderableType:
    """For a terminal."""
    from rich.text import Text

    styles = {"better": "green", "worse": "red", "neither": "", "new": "cyan", "gone": "dim"}
    grid = plain_table()
    grid.add_column("Model", overflow="fold")
    for heading in ("Protocol", "Before", "After", "Difference", ""):
        grid.add_column(heading, justify="left" if heading in ("Protocol", "") else "right", no_wrap=True)
    for change in changes:
        scores = [
            clipped_with_error(row.brierlm, row.brierlm_se) if row else "" for row in (change.before, change.after)
        ]
        found = change.difference
        difference = "" if found is None else with_error(found.value, found.error)
        cells = [printable(change.label), change.protocol_hash[:HASH_DIGITS], *scores, difference]
        grid.add_row(*map(Text, cells), Text(change.verdict, style=styles[change.verdict]))
    return grid


def _key(entry: Entry) -> tuple[str, ...]:
    return entry.protocol_hash, entry.study, entry.label, str(entry.seeds or entry.seed)


def _change(key: tuple[str, ...], before: Entry | None, after: Entry | None) -> Change:
    protocol, _, label, _ = key
    verdict: Verdict = "gone" if after is None else "new"
    change = Change(label, protocol, verdict, before, after)
    if change.difference is None:
        return change
    verdict = "neither"
    if change.difference.p_value <= LEVEL:
        verdict = "better" if change.difference.value > 0 else "worse"
    return Change(label, protocol, verdict, before, after)


def _score(change: Change) -> float:
    row = change.after or change.before
    assert row is not None  # it came from one of the two leaderboards
    return row.brierlm
