"""Documents of a Hugging Face data set, streamed from the hub at a pinned commit or from a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusAway, CorpusError, Document, Skipped
from calm_bench.corpora.file_source import FilesFound, FileSource, FilesPart
from calm_bench.corpora.input_parts import Span
from calm_bench.corpora.local import content_digest, walk_files
from calm_bench.corpora.records import Records
from calm_bench.corpora.remote_file import RemoteFile, remote_file
from calm_bench.corpora.source import HUGGING_FACE_PREFIX
from calm_bench.corpora.text_field import check_field
from calm_bench.hub_commit import COMMIT
from calm_bench.hub_contact import hub_silence

SAVED_TO_DISK = ("state.json", "dataset_dict.json")
"""Files that ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` leave in a folder."""


class HuggingFaceDataset:
    """``hf:NAME`` of the hub, or ``hf:FOLDER``: a saved data set or a folder of data files.

    No code of a data set is run. Of a set on the hub that consists of Parquet files the text column alone is fetched,
    by ranges of bytes, and several workers read it. Others are streamed by one. Either way ``corpus.max_documents``
    takes the first of a large set without fetching the rest.
    """

    fields: tuple[str, ...] = ("text_field", "subset", "split")

    def __init__(self) -> None:
        self._parquet = FileSource(HubParquet())

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

    def num_bytes(self, config: Corpus) -> int:
        return 0 if _parquet_files(config) is None else self._parquet.num_bytes(config)

    def divide(self, config: Corpus, skipped: Skipped) -> Sequence[FilesPart | None]:
        """Parts of Parquet files; one that is None where the set is streamed."""
        return [None] if _parquet_files(config) is None else self._parquet.divide(config, skipped)

    def read_part(self, config: Corpus, part: FilesPart | None, skipped: Skipped) -> Iterator[Document]:
        return self._stream(config, skipped) if part is None else self._parquet.read_part(config, part, skipped)

    def part_digest(self, config: Corpus, part: FilesPart | None) -> Any:
        return None if part is None else self._parquet.part_digest(config, part)

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        for part in self.divide(config, skipped):
            yield from self.read_part(config, part, skipped)
        self.check(config, skipped)

    def check(self, config: Corpus, skipped: Skipped) -> None:
        check_field(config.text_field, skipped, f"corpus.source={config.source}")

    def _stream(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        records = Records(config.text_field, skipped, quality=config.quality)
        name = _name(config)
        file_name = Path(name).name
        try:
            for number, example in enumerate(_load(config, name), start=1):
                yield from records.text_of(example, f"{file_name}:{number}")
        except CorpusError:
            raise
        except Exception as error:
            raise _unreadable(config, error) from error


class HubParquet:
    """Finds the Parquet files of a data set at its commit."""

    def find(self, config: Corpus) -> FilesFound[RemoteFile]:
        return FilesFound([_hub_file(config, name) for name in _parquet_files(config) or ()])

    def open(self, config: Corpus, span: Span) -> RemoteFile:
        return _hub_file(config, span.name)

    def digest(self, config: Corpus, span: Span) -> str:
        return f"{_hub_folder(config)} {span.version}"


@lru_cache(maxsize=4096)
def _remote(url: str, name: str) -> RemoteFile:
    """Asked once in a process: a commit does not change."""
    return remote_file(url, name)


def _hub_file(config: Corpus, name: str) -> RemoteFile:
    return _remote(f"{_hub_folder(config)}{name}", name)


def _hub_folder(config: Corpus) -> str:
    return f"hf://datasets/{_name(config)}@{_pinned(config)}/"


def _parquet_files(config: Corpus) -> tuple[str, ...] | None:
    """The paths of the files of a split on the hub; None where they are not Parquet alone, or it is a folder here."""
    if Path(_name(config)).expanduser().is_dir():
        return None
    try:
        files = _split_files(_name(config), config.subset, config.split, _pinned(config))
    except CorpusError:
        raise
    except Exception as error:
        raise _unreadable(config, error) from error
    folder = _hub_folder(config)
    if not files or not all(file.startswith(folder) and file.endswith(".parquet") for file in files):
        return None
    return tuple(file.removeprefix(folder) for file in files)


@lru_cache(maxsize=64)
def _split_files(name: str, subset: str | None, split: str, revision: str) -> tuple[str, ...]:
    """The files of a split as the data set's card or their names tell; none where a split is only part of them."""
    _check_that_the_hub_answers(name)
    builder = _datasets(name).load_dataset_builder(name, subset, revision=revision)
    _check_commit(builder, name, revision)
    return tuple(map(str, (builder.config.data_files or {}).get(split, ())))


def _check_commit(builder: Any, name: str, revision: str) -> None:
    """
    Raises:
        CorpusError: without a network datasets takes the latest commit that it keeps, whatever was asked for.
    """
    found = str(builder.hash)
    if COMMIT.fullmatch(found) and found != revision:
        raise CorpusError(
            f"cannot read corpus.source={HUGGING_FACE_PREFIX}{name} at {revision}: what the cache here gives without a "
            f"network is {found}. With a network it is brought; or bring it with `hf download --repo-type dataset "
            f"{name} --revision {revision} --local-dir FOLDER`, and name the folder: "
            f"corpus.source={HUGGING_FACE_PREFIX}FOLDER"
        )


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"corpus.source=hf:{name} needs the package datasets: pip install datasets") from error
    return datasets


def _check_that_the_hub_answers(name: str) -> None:
    if (silence := hub_silence()) is not None:
        raise CorpusAway(f"cannot read corpus.source={HUGGING_FACE_PREFIX}{name}: {silence}")


def _unreadable(config: Corpus, error: Exception) -> CorpusError:
    return CorpusError(
        f"cannot read corpus.source={config.source} (subset {config.subset}, split {config.split}): "
        f"{type(error).__name__}: {error}"
    )


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
    datasets = _datasets(name)
    if any((folder / marker).is_file() for marker in SAVED_TO_DISK):
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            if config.split not in loaded:
                raise CorpusError(f"{name} has no split {config.split!r}; it has {', '.join(loaded)} (corpus.split)")
            loaded = loaded[config.split]
    else:
        if not folder.is_dir():
            _check_that_the_hub_answers(name)
        source = str(folder) if folder.is_dir() else name
        loaded = datasets.load_dataset(source, config.subset, split=config.split, revision=revision, streaming=True)
    if config.text_field in (loaded.column_names or []):
        # The other columns are neither fetched nor decoded.
        language = [] if config.quality.language_field is None else [config.quality.language_field]
        columns = dict.fromkeys([config.text_field, *language])
        loaded = loaded.select_columns([column for column in columns if column in loaded.column_names])
    return loaded


SOURCE = HuggingFaceDataset()
