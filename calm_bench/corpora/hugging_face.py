"""Documents of a Hugging Face data set, streamed from the hub at a pinned commit or from a local folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.local import content_digest, walk_files
from calm_bench.corpora.records import Records, check_field
from calm_bench.corpora.source import HUGGING_FACE_PREFIX

COMMIT = re.compile(r"[0-9a-f]{40}")
SAVED_TO_DISK = ("state.json", "dataset_dict.json")
"""Files that ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` leave in a folder."""


class HuggingFaceDataset:
    """``hf:NAME`` of the hub, or ``hf:FOLDER``: a saved data set or a folder of data files.

    No code of a data set is run. Documents are streamed, so ``corpus.max_documents`` takes the first of a large set
    without fetching the rest.
    """

    fields: tuple[str, ...] = ("text_field", "subset", "split")

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """The name and commit on the hub, or a digest of the local folder; needs no network."""
        name = _name(config)
        folder = Path(name).expanduser()
        if not folder.is_dir():
            return {"name": name, "revision": _pinned(config)}
        digest = hashlib.sha256()
        for file in walk_files(folder):
            # Names decide splits and order here, unlike among plain local files.
            digest.update(f"{file.relative_to(folder).as_posix()}\0{content_digest(file)}\n".encode())
        return {"content": digest.hexdigest()}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        records = Records(config.text_field, skipped)
        name = _name(config)
        file_name = Path(name).name
        try:
            for number, example in enumerate(_load(config, name), start=1):
                yield from records.text_of(example, f"{file_name}:{number}")
        except CorpusError:
            raise
        except Exception as error:
            raise CorpusError(
                f"cannot read corpus.source={config.source} (subset {config.subset}, split {config.split}): "
                f"{type(error).__name__}: {error}"
            ) from error
        check_field(config.text_field, skipped, f"corpus.source={config.source}")


def _name(config: Corpus) -> str:
    name = config.source.removeprefix(HUGGING_FACE_PREFIX)
    if not name:
        raise CorpusError("corpus.source=hf: needs the name of a data set or a folder, as in hf:NAME")
    return name


def _pinned(config: Corpus) -> str:
    if config.revision is None or not COMMIT.fullmatch(config.revision):
        raise CorpusError(
            f"corpus.source={config.source} is no local folder, and on the hub it could change: set corpus.revision to "
            f"a full commit hash of 40 hex digits, found {config.revision!r}"
        )
    return config.revision


def _load(config: Corpus, name: str) -> Any:
    """An iterable of examples."""
    folder = Path(name).expanduser()
    revision = None if folder.is_dir() else _pinned(config)
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"corpus.source={config.source} needs the package datasets: pip install datasets") from error
    if any((folder / marker).is_file() for marker in SAVED_TO_DISK):
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            if config.split not in loaded:
                raise CorpusError(f"{name} has no split {config.split!r}; it has {', '.join(loaded)} (corpus.split)")
            loaded = loaded[config.split]
    else:
        source = str(folder) if folder.is_dir() else name
        loaded = datasets.load_dataset(source, config.subset, split=config.split, revision=revision, streaming=True)
    if config.text_field in (loaded.column_names or []):
        # The other columns are neither fetched nor decoded.
        loaded = loaded.select_columns([config.text_field])
    return loaded


SOURCE = HuggingFaceDataset()
