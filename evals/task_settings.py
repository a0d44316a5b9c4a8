"""The settings of a task file, looked at before lm-eval builds the task: it passes over some, and fails at others late
or in words of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from calm_bench.registry import did_you_mean
from evals.task_data import PACKAGED
from evals.task_files import Function, TaskFile, TaskFileError

READ_BY_US = ("class", "group", "include")
"""Keys of task files that are none of lm-eval's tasks."""
SIMILAR = {"jsonl": "json", "ndjson": "json", "tsv": "csv", "txt": "text"}
"""What people write for a ``dataset_path`` that says how to read files."""

PLACES = frozenset({"data_files", "data_dir"})
"""Keys of ``dataset_kwargs`` that say where files are."""
NULLABLE = ("dataset_name", "training_split", "validation_split", "test_split", "fewshot_split")
"""Settings of which null says that there is none."""
TEXTS = (*NULLABLE, "description", "target_delimiter", "fewshot_delimiter")
"""Settings that YAML may take for something else: ``no`` is a truth value there, ``2024`` a number."""


def check_settings(file: TaskFile, folder: Path | None = None) -> None:
    """
    Args:
        folder: where the data lie, if that is said beside the file's name.

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
    _check_data(file, folder)
    _check_metrics(file)
    _check_filters(file)
    generation = settings.get("generation_kwargs")
    if generation is not None and not isinstance(generation, Mapping):
        raise TaskFileError(
            f"{file.path}: generation_kwargs must be a mapping (generation_kwargs: {{max_gen_toks: 32}}), found "
            f"{generation!r}"
        )
    temperature = (generation or {}).get("temperature", 0)
    if not isinstance(temperature, int | float | None) or isinstance(temperature, bool):
        raise TaskFileError(f"{file.path}: generation_kwargs: temperature must be a number, found {temperature!r}")
    for function in file.functions:
        _check_function(file, function)


def _check_data(file: TaskFile, folder: Path | None) -> None:
    source, kwargs = file.settings.get("dataset_path"), file.settings.get("dataset_kwargs") or {}
    if isinstance(kwargs, Mapping) and source in PACKAGED and folder is None and not PLACES & kwargs.keys():
        # datasets would read whatever lies in the working directory.
        raise TaskFileError(
            f"{file.path}: dataset_path: {source} is a kind of files: name them beside it "
            "(dataset_kwargs: {data_files: {test: mine.jsonl}})"
        )
    if not isinstance(kwargs, Mapping):
        raise TaskFileError(
            f"{file.path}: dataset_kwargs must be a mapping (dataset_kwargs: {{data_files: {{test: mine.jsonl}}}}), "
            f"found {kwargs!r}"
        )
    named = kwargs.get("data_files", "")
    each = list(named.values()) if isinstance(named, Mapping) else [named]
    if not each or not all(isinstance(one, str) or (isinstance(one, list) and one and _texts(one)) for one in each):
        raise TaskFileError(
            f"{file.path}: dataset_kwargs.data_files must name files, by split ({{test: mine.jsonl}}), found {named!r}"
        )


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_filters(file: TaskFile) -> None:
    import lm_eval.filters  # noqa: F401  (which registers what is known)
    from lm_eval.api.registry import FILTER_REGISTRY

    listed = file.settings.get("filter_list")
    if listed is None:
        return
    form = "filter_list must list filters ([{name: first, filter: [{function: take_first}]}])"
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise TaskFileError(f"{file.path}: {form}, found {listed!r}")
    for one in listed:
        steps = one.get("filter")
        if "name" not in one or not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
            raise TaskFileError(f"{file.path}: {form}, found {dict(one)!r}")
        for step in steps:
            function = step.get("function")
            if isinstance(function, str) and function not in FILTER_REGISTRY:
                raise TaskFileError(
                    f"{file.path}: filter_list: there is no filter {function!r}"
                    f"{did_you_mean(function, sorted(FILTER_REGISTRY))}"
                )


def _check_function(file: TaskFile, function: Function) -> None:
    module, _, name = function.name.rpartition(".")
    if not (module and name) or "/" in module:
        raise TaskFileError(
            f"{file.path}: !function {function.name}: write MODULE.NAME, of a file MODULE.py beside it, as in "
            "!function utils.process_docs"
        )
    if function.file is not None:
        return
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise TaskFileError(
            f"{file.path}: !function {function.name}: there is no {module.replace('.', '/')}.py in {function.folder}, "
            f"and no module {module} to import"
        )


def _check_metrics(file: TaskFile) -> None:
    import lm_eval.api.metrics  # noqa: F401  (which registers what is known)
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    listed = file.settings.get("metric_list")
    if listed is None:
        return
    if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise TaskFileError(f"{file.path}: metric_list must list metrics ([{{metric: acc}}]), found {listed!r}")
    for metric in listed:
        if not isinstance(metric.get("metric"), str | Function):
            raise TaskFileError(
                f"{file.path}: metric_list: each metric is named ([{{metric: acc}}]), found {dict(metric)!r}"
            )
        aggregation: Any = metric.get("aggregation")
        if isinstance(aggregation, str) and aggregation not in AGGREGATION_REGISTRY:
            raise TaskFileError(
                f"{file.path}: metric_list: there is no aggregation {aggregation!r}"
                f"{did_you_mean(aggregation, sorted(AGGREGATION_REGISTRY))}"
            )
