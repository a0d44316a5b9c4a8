"""Tasks of lm-eval that come with the package, as files which lm-eval reads by themselves.

They need no network: their documents are made from held-out text of the standard library, or from a language of known
truth. ``lm-eval --include_path`` takes :data:`TASKS_FOLDER`.
"""

from __future__ import annotations

from pathlib import Path

TASKS_FOLDER = Path(__file__).parent
"""The folder of the task files, ``<task>.yaml``."""


LENGTHS_OF_ANSWERS = {"markov_choice": 6, "stdlib_choice": 12, "stdlib_last_word": 5}
"""Characters of the answers to choose from, or of the shortest ones, by task; others have none."""


def shipped_tasks() -> list[str]:
    """Names of the tasks that come with the package, sorted."""
    return sorted(path.stem for path in TASKS_FOLDER.glob("*.yaml"))
