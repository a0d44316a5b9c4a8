"""The settings of a task file, looked at before lm-eval builds the task: it passes over some, and fails at others late
or in words of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calm_bench.registry import did_you_mean
from evals.task_data import PACKAGED
from evals.task_files import TaskFile, TaskFileError

READ_BY_US = ("class", "group", "include")
"""Keys of task files that are none of lm-eval's tasks."""
SIMILAR = {"jsonl": "json", "ndjson": "json", "tsv": "csv", "txt": "text"}
"""What people write for a ``dataset_path`` that says how to read files."""

NULLABLE = ("dataset_name", "training_split", "validation_split", "test_split", "fewshot_split")
"""Settings of which null says that there is none."""
TEXTS = (*NULLABLE, "description", "target_delimiter", "fewshot_delimiter")
"""Settings that YAML may take for something else: ``no`` is a truth value there, ``2024`` a number."""


def check_settings(file: TaskFile) -> None:
    """
    Raises:
        TaskFileError: a key that no task has, or a value that cannot be one; names the file, the key and the nearest.
    """
    from dataclasses import fields

    from lm_eval.api.task import ALL_OUTPUT_TYPES, TaskConfig

    from evals.rehearsal import UNSAFE

    settings = file.settings
    known = [field.name for field in fields(TaskConfig)]
    for key in settings:
        if key not in known and key not in READ_BY_US:
            raise TaskFileError(f"{file.path}: {key} is no setting of a task{did_you_mean(str(key), known)}")
    source = settings.get("dataset_path")
    if not isinstance(source, str) and settings.get("custom_dataset") is None:
        raise TaskFileError(
            f"{file.path}: dataset_path must say where the questions are: a kind of files "
            f"({', '.join(sorted(PACKAGED))}) with dataset_kwargs.data_files, a folder, or a name on the hub; found "
            f"{source!r}"
        )
    if source in SIMILAR and not (file.path.parent / str(source)).exists():
        raise TaskFileError(f"{file.path}: dataset_path: {source} is no kind of files: write {SIMILAR[str(source)]}")
    for name in TEXTS:
        value = settings.get(name, "")
        if not isinstance(value, str) and not (value is None and name in NULLABLE):
            raise TaskFileError(f"{file.path}: {name} must be a text, found {value!r}: put it in quotes")
    if (kind := settings.get("output_type")) is not None and kind not in ALL_OUTPUT_TYPES:
        raise TaskFileError(f"{file.path}: there is no output_type {kind!r}{did_you_mean(str(kind), ALL_OUTPUT_TYPES)}")
    if settings.get("unsafe_code"):
        raise TaskFileError(UNSAFE.format(file.path))
    for name, least in (("num_fewshot", 0), ("repeats", 1)):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise TaskFileError(f"{file.path}: {name} must be a number from {least} up, found {value!r}")
    _check_metrics(file)


def _check_metrics(file: TaskFile) -> None:
    import lm_eval.api.metrics  # noqa: F401  (which registers what is known)
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    listed = file.settings.get("metric_list")
    if listed is None:
        return
    if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise TaskFileError(f"{file.path}: metric_list must list metrics ([{{metric: acc}}]), found {listed!r}")
    for metric in listed:
        aggregation: Any = metric.get("aggregation")
        if isinstance(aggregation, str) and aggregation not in AGGREGATION_REGISTRY:
            raise TaskFileError(
                f"{file.path}: metric_list: there is no aggregation {aggregation!r}"
                f"{did_you_mean(aggregation, sorted(AGGREGATION_REGISTRY))}"
            )
