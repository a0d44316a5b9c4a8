"""A store as tables for people and as JSON for tools."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.common.numbers import printable
from pipelines.common.tables import plain_table
from pipelines.store.inventory import StoredStage
from pipelines.store.sweeping import Waste

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"done": "green", "running": "cyan", "unfinished": "yellow", "abandoned": "dim"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def stage_table(stages: Sequence[StoredStage], now: float | None = None) -> Table:
    """One line a stage."""
    from rich.text import Text

    table = _table("Stage", "Identity", "State", "Size", "Age", "Studies")
    for stage in stages:
        state = Text(stage.state, style=_STYLES[stage.state])
        if stage.holder:
            state.append(f" by {printable(stage.holder)}")
        table.add_row(
            Text(printable(stage.label)),
            Text(f"{stage.kind}/{stage.identity}"),
            state,
            Text(size(stage.size)),
            Text(age((time.time() if now is None else now) - stage.modified)),
            Text(printable(", ".join(stage.studies))),
        )
    return table


def waste_table(waste: Sequence[Waste]) -> Table:
    """One line for each thing that can go."""
    from rich.text import Text

    table = _table("Nobody needs", "Because", "Size")
    for item in waste:
        table.add_row(Text(printable(item.what)), Text(printable(item.reason)), Text(size(item.size)))
    return table


def totals(stages: Sequence[StoredStage]) -> str:
    """Stages and bytes by state, in one line."""
    if not stages:
        return "the store is empty"
    parts = []
    for state in _STYLES:
        chosen = [stage for stage in stages if stage.state == state]
        if chosen:
            parts.append(f"{len(chosen)} {state}, {size(sum(stage.size for stage in chosen))}")
    return "; ".join(parts)


def stage_dict(stage: StoredStage) -> dict[str, Any]:
    """JSON of one line of :func:`stage_table`; times are seconds since the epoch, sizes bytes."""
    return {
        "kind": stage.kind,
        "identity": stage.identity,
        "label": stage.label,
        "state": stage.state,
        "folder": str(stage.folder),
        "bytes": stage.size,
        "modified": stage.modified,
        "studies": list(stage.studies),
        "holder": stage.holder or None,
    }


def waste_dict(item: Waste) -> dict[str, Any]:
    """JSON of one line of :func:`waste_table`."""
    return {"what": item.what, "reason": item.reason, "folder": str(item.folder), "bytes": item.size}


def size(count: float) -> str:
    """``12.3 MB``: three digits, powers of ten as disks are sold and as ``du --si`` says it."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:.0f} {unit}"
    return f"{count:.0f} B"


def age(seconds: float) -> str:
    """``3 min``, ``5 h``, ``12 d``: how long ago, roughly."""
    if seconds < _HOUR:
        return f"{max(0, int(seconds // _MINUTE))} min"
    return f"{int(seconds // _HOUR)} h" if seconds < 2 * _DAY else f"{int(seconds // _DAY)} d"


def _table(*headings: str) -> Table:

    table = plain_table()
    for heading in headings:
        right = heading in ("Size", "Age")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table
