"""Rows grouped by what they were measured with, ordered by score; written as JSON and CSV, read back from JSON."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from calm_bench.errors import RunError
from calm_bench.file_signs import HEAD_BYTES, misread_as, not_utf8, packed_by
from calm_bench.json_text import parse_json_text
from calm_bench.problems import explain
from pipelines.common.tables import csv_text
from pipelines.results.entry import Entry
from pipelines.results.pairing import Differences, differences
from pipelines.results.pareto import pareto_front
from pipelines.results.ranks import shared_ranks
from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.refs import StudyRef

FORMAT = "calm-bench leaderboard"
VERSION = 1
TASK = "task_"
"""Columns of a CSV file that hold scores of lm-eval tasks begin with this."""
SETTING = "setting "
"""Columns of a CSV file that hold what the search set begin with this."""
NOT_IN_CSV = ("replicates",)
"""Fields that only programs read, and they read JSON."""

Cost = Literal["total_training_flops", "training_flops", "inference_flops_per_token", "wall_time_s", "parameters"]


class LeaderboardError(RunError, ValueError):
    """A file that is not a leaderboard of this version."""


@dataclass(frozen=True)
class Group:
    """The rows of one protocol, best score first; only these are ranked against each other."""

    protocol_hash: str
    entries: tuple[Entry, ...]

    @cached_property
    def differences(self) -> Differences:
        """The errors of the differences between any two rows."""
        return differences(self.entries)

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the rows in their order; rows that do not differ significantly share one."""
        scores = [(entry.brierlm, entry.brierlm_se) for entry in self.entries]
        parts = [entry.parts for entry in self.entries]
        seeds = [len(entry.seeds) or 1 for entry in self.entries]
        return tuple(shared_ranks(scores, self.differences.margins, parts, seeds))

    def front(self, cost: Cost = "total_training_flops") -> tuple[Entry, ...]:
        """The rows that no other row beats in BrierLM for the same or less ``cost``, cheapest first; none whose cost is
        not known."""
        flags = pareto_front([(getattr(entry, cost), entry.brierlm) for entry in self.entries])
        chosen = [entry for entry, flag in zip(self.entries, flags, strict=True) if flag]
        return tuple(sorted(chosen, key=lambda entry: (getattr(entry, cost), entry.brierlm)))


class Leaderboard:
    """Rows from one or many studies. Equal rows count once; the order in which they come does not matter."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        by_protocol: dict[str, list[Entry]] = defaultdict(list)
        for entry in dict.fromkeys(entries):
            by_protocol[entry.protocol_hash].append(entry)
        self.groups = tuple(
            Group(protocol, tuple(sorted(rows, key=_best_first))) for protocol, rows in sorted(by_protocol.items())
        )

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for group in self.groups for entry in group.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def to_json(self) -> str:
        """All fields of all rows, with the two Pareto fronts named by trial; :meth:`from_json` reads it back."""
        groups = [
            {
                "protocol_hash": group.protocol_hash,
                "entries": [entry.model_dump(mode="json") for entry in group.entries],
                "pareto_front": {
                    cost: [{"study": entry.study, "trial": entry.trial, "label": entry.label} for entry in front]
                    for cost, front in (
                        ("total_training_flops", group.front("total_training_flops")),
                        ("inference_flops_per_token", group.front("inference_flops_per_token")),
                    )
                },
            }
            for group in self.groups
        ]
        return json.dumps({"format": FORMAT, "version": VERSION, "groups": groups}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Leaderboard:
        """Read what :meth:`to_json` wrote.

        Raises:
            LeaderboardError: it is something else; says what.
        """
        try:
            document = parse_json_text(text, object_pairs_hook=_each_once)
        except json.JSONDecodeError as error:
            raise LeaderboardError(f"not a leaderboard: not JSON ({error})") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise LeaderboardError(f'not a leaderboard: it lacks the line "format": "{FORMAT}"')
        if document.get("version") != VERSION:
            raise LeaderboardError(
                f"a leaderboard of version {document.get('version')}, but this calm-bench reads version {VERSION}"
            )
        groups = document.get("groups")
        if not isinstance(groups, list) or not all(
            isinstance(group, dict) and isinstance(group.get("entries"), list) for group in groups
        ):
            raise LeaderboardError("a damaged leaderboard: its groups must be a list of objects with lists of entries")
        rows = [row for group in groups for row in group["entries"]]
        return cls(_entry(row, number) for number, row in enumerate(rows, 1))

    def text_columns(self) -> list[str]:
        """The columns of :meth:`to_csv` that hold text, whatever a reader would take it for."""
        flat = [_flat(entry) for group in self.groups for entry in group.entries]
        return sorted({name for row in flat for name, value in row.items() if isinstance(value, str)})

    def to_csv(self, is_for_programs: bool = False) -> str:
        """One line a row, all fields; Brier-1..4 and their errors in columns of their own.

        Args:
            is_for_programs: as of :func:`pipelines.common.tables.csv_text`.
        """
        rows = [
            {"rank": rank, **_flat(entry)}
            for group in self.groups
            for rank, entry in zip(group.ranks, group.entries, strict=True)
        ]
        fixed = ["rank", *_columns()]
        columns = [*fixed, *sorted({name for row in rows for name in row} - set(fixed))]
        return csv_text(rows, columns, is_for_programs)


def _entry(row: Any, number: int) -> Entry:
    """
    Raises:
        LeaderboardError: ``row`` is no row of this version; says which it is, and what is wrong.
    """
    try:
        return Entry.model_validate(row)
    except ValidationError as error:
        problems, told = error.errors(), "; ".join(explain(Entry, error))
    label = row.get("label") if isinstance(row, dict) else None
    named = f"row {number}" + (f" ({label[:80]})" if isinstance(label, str) else "")
    unknown = [str(problem["loc"][-1]) for problem in problems if problem["type"] == "extra_forbidden"]
    if len(unknown) == len(problems):
        raise LeaderboardError(
            f"a leaderboard with fields that this calm-bench does not know ({named}: {', '.join(unknown)}): a newer "
            "version wrote it; update calm-bench"
        )
    raise LeaderboardError(f"a damaged leaderboard: {named}: {told}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which readers would take either of two values of one name.

    Raises:
        LeaderboardError: a name is given twice.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise LeaderboardError(f"a damaged leaderboard: it gives {name[:80]!r} twice in one place")
        found[name] = value
    return found


def read_board(path: Path) -> Leaderboard:
    """The leaderboard in a file.

    Raises:
        LeaderboardError: there is none of this version; names the file.
    """
    try:
        # Once: what a shell gives as <(command) cannot be read again.
        content = path.read_bytes()
        if (wrong := misread_as(content[:HEAD_BYTES])) is not None:
            raise LeaderboardError(wrong)
        if (packed := packed_by(content)) is not None:
            raise LeaderboardError(f"compressed: unpack it first, with `{packed}`")
        # Editors of other systems put a byte order mark before it.
        return Leaderboard.from_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LeaderboardError(f"{path} is {not_utf8(content, error)}") from error
    except OSError as error:
        raise LeaderboardError(f"{path} cannot be read: {error.strerror or error}") from error
    except LeaderboardError as error:
        raise LeaderboardError(f"{path} is {error}") from error


def load_board(folder: Path) -> Leaderboard | None:
    """The leaderboard of the study in ``folder``, as its last complete run wrote it; None before that.

    Raises:
        LeaderboardError: the file is damaged, or of another version; says how to make it anew.
    """
    path = folder / LEADERBOARD_FILE
    if not path.is_file():
        return None
    identity = StudyRef.of(folder).identity
    try:
        board = read_board(path)
    except LeaderboardError as error:
        raise LeaderboardError(f"{error}; run the study again, which writes it anew") from error
    return Leaderboard(entry.model_copy(update={"study_identity": identity}) for entry in board)


def _best_first(entry: Entry) -> tuple[Any, ...]:
    # Scores clipped to 0 say nothing of each other, their components do.
    parts = [-value for value in entry.brier] if entry.brierlm == 0 else []
    # The other keys make the order of ties independent of the order of arrival.
    return (
        -entry.brierlm,
        parts,
        math.inf if entry.total_training_flops is None else entry.total_training_flops,
        entry.label,
        entry.study,
        entry.trial,
        entry.model_dump_json(),
    )


def _flat(entry: Entry) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entry.model_dump(mode="json").items():
        if name in ("brier", "brier_se"):
            stem, _, suffix = name.partition("_")
            flat |= {f"{stem}_{n}{'_' + suffix if suffix else ''}": part for n, part in enumerate(value, start=1)}
        elif name in ("seeds", "model_identities"):
            flat[name] = " ".join(map(str, value))
        elif name == "tasks":
            for score in entry.tasks:
                flat |= {f"{TASK}{score.name}": score.value, f"{TASK}{score.name}_se": score.standard_error}
        elif name == "measures":
            for measure in entry.measures:
                flat |= {measure.key: measure.value, f"{measure.key}_se": measure.standard_error}
        elif name == "settings":
            flat |= {f"{SETTING}{path}": setting for path, setting in entry.settings}
        elif name not in NOT_IN_CSV:
            flat[name] = value
    return flat


def _columns() -> list[str]:
    columns: list[str] = []
    for name in Entry.model_fields:
        if name == "brier":
            columns += [f"brier_{n}" for n in range(1, 5)]
        elif name == "brier_se":
            columns += [f"brier_{n}_se" for n in range(1, 5)]
        elif name not in ("tasks", "measures", "settings", *NOT_IN_CSV):
            columns.append(name)
    return columns
