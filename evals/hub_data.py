"""The commit of a data set of the Hugging Face hub that a task reads: its name alone may mean other questions tomorrow.

The package datasets asks the hub for the newest commit where there is a network, and keeps what it prepared in a folder
called as its commit. Without a network it takes the latest that is kept, whatever commit was asked for.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from calm_bench.hub_commit import COMMIT
from evals.task_data import PACKAGED, LocalData, leaves
from evals.task_files import TaskFile

_CARD = "README.md"
"""What datasets fetches first, by which the hub's client keeps the commit of a branch."""
_IN_ADDRESS = re.compile(r"@([0-9a-f]{40})/")


class HubData(NamedTuple):
    """A data set as a task names it."""

    source: str
    subset: str | None
    revision: str | None
    """A commit, a branch or a tag; None is the main branch."""


def hub_data(task: TaskFile, local: LocalData) -> HubData | None:
    """The data set of the hub that is all the data of ``task``; None where it reads something else."""
    source, kwargs = task.settings.get("dataset_path"), task.settings.get("dataset_kwargs") or {}
    if local.files or not isinstance(source, str) or not isinstance(kwargs, Mapping):
        return None
    is_name = source not in PACKAGED and "://" not in source and source.count("/") <= 1
    if not is_name or any("://" in leaf for leaf in leaves(kwargs.get("data_files"))):
        return None
    subset, revision = task.settings.get("dataset_name"), kwargs.get("revision")
    return HubData(source, None if subset is None else str(subset), None if revision is None else str(revision))


def kept_commit(data: HubData) -> str | None:
    """The commit that ``data`` stands for on this machine; asks nobody. None where that is not known.

    That is the one of its revision that was fetched last, and else the latest that is prepared.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if data.revision is not None and COMMIT.fullmatch(data.revision):
        return data.revision
    try:
        card = try_to_load_from_cache(data.source, _CARD, repo_type="dataset", revision=data.revision)
    except HFValidationError:
        return None
    fetched = Path(card).parent.name if isinstance(card, str) else None
    if data.revision is not None:
        return fetched
    prepared = _prepared(data)
    return fetched if fetched in prepared or not prepared else prepared[-1]


def loaded_commit(dataset: Any) -> str | None:
    """The commit that the splits of a loaded data set are of; None where they do not tell."""
    return next(_told(dataset), None)


def _told(dataset: Any) -> Iterator[str]:
    for split in dataset.values() if isinstance(dataset, Mapping) else [dataset]:
        for file in getattr(split, "cache_files", ()):
            if COMMIT.fullmatch(name := Path(file["filename"]).parent.name):
                yield name
        checksums = getattr(getattr(split, "info", None), "download_checksums", None) or {}
        yield from (found[1] for address in checksums if (found := _IN_ADDRESS.search(str(address))))


def _prepared(data: HubData) -> list[str]:
    """Commits of which the data set is prepared here, the latest last."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, name = data.source.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    # Settings beside the subset's name give the folder a suffix.
    subsets = ["*"] if data.subset is None else [glob.escape(data.subset), f"{glob.escape(data.subset)}-*"]
    found = [path for subset in subsets for path in folder.glob(f"{subset}/*/*")]
    kept = [path for path in found if COMMIT.fullmatch(path.name) and path.is_dir()]
    return [path.name for path in sorted(kept, key=lambda path: path.stat().st_mtime_ns)]
