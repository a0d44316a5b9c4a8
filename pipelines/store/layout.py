"""What lies where below the root of a store, on this machine and as keys of an object store alike. Spelled here only.

:mod:`pipelines.store.store` says what is in each.
"""

from __future__ import annotations

from pathlib import Path

STAGES = "stages"
WORK = "work"
STUDIES = "studies"
LEADERBOARD_FILE = "leaderboard.json"
"""In a study's folder, of :class:`pipelines.results.leaderboard.Leaderboard`."""
JOURNAL = "optuna.journal"
"""In a study's folder: its trials as Optuna keeps them, where no database does."""
PROGRESS = "progress"
"""In a study's folder: what its drivers tell those who watch."""


def stage_folder(root: Path, kind: str, identity: str) -> Path:
    """Where a finished stage is, or will be."""
    return root / STAGES / kind / identity


def work_folder(root: Path, name: str) -> Path:
    """Where the stage called ``name`` (``kind-identity``) is worked on until it is finished."""
    return root / WORK / name


def study_folders(root: Path) -> list[Path]:
    """The folders of all studies, by name."""
    return sorted(path for path in (root / STUDIES).glob("*") if path.is_dir())
