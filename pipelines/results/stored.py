"""The rows of all studies in a store, with what tells studies of one name apart."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.results.leaderboard import Leaderboard, load_board
from pipelines.store.refs import StudyRef
from pipelines.store.store import Store
from pipelines.store.study_names import short_names
from pipelines.store.study_record import load_study

NO_DIFFERENCE = ("name", "description", "seed", "execution", "tracking")
"""Sections of a study that change no row, or that a column of its own shows."""
MOST_SETTINGS = 3
LONGEST_VALUE = 24


def stored_leaderboards(store: Store) -> dict[Path, Leaderboard]:
    """Every study's leaderboard in ``store``, by the study's folder; studies of one name are told apart.

    Raises:
        LeaderboardError: a file is not a leaderboard of this version.
    """
    boards = {folder: load_board(folder) for folder in store.studies.folders()}
    return told_apart({folder: board for folder, board in boards.items() if board is not None})


def told_apart(boards: Mapping[Path, Leaderboard]) -> dict[Path, Leaderboard]:
    """``boards`` by folder, where rows of studies that share a name say in what these differ (``Entry.variant``)."""
    variants = variants_of(boards)
    return {
        folder: Leaderboard(entry.model_copy(update={"variant": variants[folder]}) for entry in board)
        if folder in variants
        else board
        for folder, board in boards.items()
    }


def variants_of(folders: Iterable[Path]) -> dict[Path, str]:
    """What sets each study apart from the others of its name, as in ``smoke-7fda: num_steps=50``.

    Studies whose name is their own are left out.
    """
    folders = list(folders)
    names = short_names(folders)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        by_name[StudyRef.of(folder).name].append(folder)
    found = {}
    for alike in by_name.values():
        if len(alike) > 1:
            for folder, words in zip(alike, _differences([_settings(folder) for folder in alike]), strict=True):
                found[folder] = names[folder] + (f": {words}" if words else "")
    return found


def _settings(folder: Path) -> dict[str, Any]:
    record = load_study(folder)
    return {} if record is None else dict(_leaves("", record.settings))


def _leaves(path: str, value: object) -> Iterable[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        if path or key not in NO_DIFFERENCE:
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)


def _differences(studies: Sequence[Mapping[str, object]]) -> list[str]:
    """The settings in which ``studies`` differ, a text for each study."""
    paths = dict.fromkeys(path for settings in studies for path in settings)
    differing = [path for path in paths if len({_shown(settings.get(path)) for settings in studies}) > 1]
    words = []
    for settings in studies:
        # A search is a list of parameters: that it differs is said, and study.yaml says how.
        parts = [
            "search" if path.startswith("search.") else f"{_short(path, differing)}={_cut(_shown(settings.get(path)))}"
            for path in differing
        ]
        parts = list(dict.fromkeys(parts))
        more = len(parts) - MOST_SETTINGS
        words.append(", ".join(parts[:MOST_SETTINGS]) + (f" and {more} more" if more > 0 else ""))
    return words


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"...{text[3 - LONGEST_VALUE :]}"


def _short(path: str, others: Sequence[str]) -> str:
    """The last part of ``path``, with as many before it as set it apart from ``others``."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        if sum(other.split(".")[-length:] == parts[-length:] for other in others) == 1:
            return ".".join(parts[-length:])
    return path
