"""Task files and their data, as people write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROWS: list[dict[str, Any]] = [
    {"question": f"number {number} is", "choices": ["even", "odd"], "answer": number % 2} for number in range(6)
]
CHOICE: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}},
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "question",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_task(
    folder: Path, name: str = "mine.yaml", rows: Sequence[Mapping[str, Any]] | None = ROWS, **changes: Any
) -> Path:
    """A task of two choices in ``folder``, its data beside it; a change of None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: value for key, value in {**CHOICE, **changes}.items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(settings))
    if rows is not None:
        write_rows(folder / "mine.jsonl", rows)
    return folder / name
