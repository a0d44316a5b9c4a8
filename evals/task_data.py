"""Where the questions of a task file lie: files on this machine, or a data set of the hub.

Paths in a task file are relative to it; those that are only found from the working directory, as lm-eval looks for
them, are taken from there.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calm_bench import walk
from calm_bench.file_signs import misread_file, not_utf8
from calm_bench.json_text import parse_json_text
from evals.task_files import TaskFile, TaskFileError

PACKAGED = frozenset({"arrow", "audiofolder", "csv", "imagefolder", "json", "pandas", "parquet", "text", "xml"})
"""Names of ``dataset_path`` that say how to read the files of ``dataset_kwargs``."""

MOST_BYTES_LOOKED_AT = 2**25
"""Of a file whose records are looked at one by one."""
TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt")


class LocalData:
    """The data of a task file, as far as they are files here.

    Raises:
        TaskFileError: a file that the task names is missing, empty, or something else than it is taken for.
    """

    def __init__(self, task: TaskFile, folder: Path | None = None) -> None:
        """
        Args:
            folder: read instead of what the task names.
        """
        self._task = task
        self.settings: dict[str, Any] = {}
        """Settings of the task file, with absolute paths."""
        self.files: list[Path] = []
        """Every file that may be read, sorted within each place that the task names."""
        self.is_complete = False
        """Whether ``files`` are all the data, so that nothing comes from elsewhere."""
        if folder is not None:
            self._from_folder(folder)
        elif isinstance(task.settings.get("dataset_path"), str):
            self._from_settings(str(task.settings["dataset_path"]))
        for file in self.files:
            self._check(file)

    def _from_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise TaskFileError(f"{self._task.path}@{folder}: there is no folder {folder}")
        if "dataset_path" not in self._task.settings:
            raise TaskFileError(f"{self._task.path} names no data set (dataset_path), so it cannot be given a folder")
        self.settings = {"dataset_path": str(folder.absolute()), "dataset_name": None}
        self.files, self.is_complete = files_below(folder), True

    def _from_settings(self, source: str) -> None:
        given = self._task.settings.get("dataset_kwargs") or {}
        kwargs = dict(given) if isinstance(given, Mapping) else {}
        found = self._existing(source) if source not in PACKAGED else None
        if found is not None:
            self.settings["dataset_path"] = str(found)
            self.files, self.is_complete = files_below(found), True
        base = self._task.path.parent
        data_dir = kwargs.get("data_dir")
        if isinstance(data_dir, str) and "://" not in data_dir and (there := self._existing(data_dir)) is not None:
            kwargs["data_dir"], base = str(there), there
            if "data_files" not in kwargs:
                self.files += files_below(there)
                self.is_complete = source in PACKAGED
        if "data_files" in kwargs:
            remote = [leaf for leaf in leaves(kwargs["data_files"]) if "://" in leaf]
            local = source in PACKAGED or found is not None
            if local:
                kwargs["data_files"] = self._absolute(kwargs["data_files"], base)
            self.is_complete = local and not remote
        if kwargs != given:
            self.settings["dataset_kwargs"] = kwargs

    def _absolute(self, value: Any, base: Path) -> Any:
        if isinstance(value, Mapping):
            return {key: self._absolute(inner, base) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._absolute(inner, base) for inner in value]
        if not isinstance(value, str) or "://" in value:
            return value
        real = self._task.path.resolve().parent
        for root in dict.fromkeys((base, real if base == self._task.path.parent else base, Path.cwd())):
            pattern = str(root.absolute() / Path(value).expanduser())
            literal = Path(pattern)
            if literal.is_dir():
                raise TaskFileError(
                    f"{self._task.path}: dataset_kwargs.data_files names the folder {literal}: name its files, as in "
                    f"{value.rstrip('/')}/*.jsonl, or give it as dataset_path"
                )
            matches = [literal] if literal.is_file() else sorted(map(Path, glob.glob(pattern, recursive=True)))
            if matches:
                self.files += [match for match in matches if match.is_file()]
                # Signs of patterns may be part of a name.
                return glob.escape(pattern) if literal.is_file() else pattern
        raise TaskFileError(
            f"{self._task.path}: dataset_kwargs.data_files names {value}, which is neither in {base} nor in "
            f"{Path.cwd()}"
        )

    def broken_file(self) -> str | None:
        """The first file of text that is no UTF-8 or has a line that is no JSON, and where; None where all are in
        order."""
        for file in self.files:
            if file.suffix.lower() not in TEXT_SUFFIXES:
                continue
            if (wrong := _not_text(file)) is not None:
                return f"{file} is {wrong}"
            if file.suffix.lower() in (".jsonl", ".ndjson") and (line := _broken_line(file)) is not None:
                return f"{file}, line {line}: not JSON"
        return None

    def why_unreadable(self, error: BaseException) -> str:
        """The file and line that cannot be read where they can be told, else what ``error`` says of its cause."""
        if (broken := self.broken_file()) is not None:
            return broken
        cause = error.__cause__ or error
        named = ", ".join(map(str, self.files[:3])) or str(self._task.settings.get("dataset_path"))
        return f"{named}: {type(cause).__name__}: {' '.join(str(cause).split())[:200]}"

    def _existing(self, path: str) -> Path | None:
        roots = (self._task.path.parent, self._task.path.resolve().parent, Path.cwd())
        return next((at for root in roots if (at := root.absolute() / Path(path).expanduser()).exists()), None)

    def _check(self, file: Path) -> None:
        try:
            is_text = file.suffix.lower() in TEXT_SUFFIXES
            wrong = "empty" if is_text and file.stat().st_size == 0 else misread_file(file, is_text)
        except OSError as error:
            raise TaskFileError(f"{self._task.path}: cannot read {file}: {error.strerror or error}") from error
        if wrong is not None:
            raise TaskFileError(f"{self._task.path}: its data file {file} is {wrong}")


def check_lines(task: TaskFile, files: list[Path]) -> None:
    """Look at the records of JSON lines for what readers take in different ways; large files are left alone, and what
    is no JSON is told of when it is read.

    Raises:
        TaskFileError: a key that is given twice, or a text that is none; names the file and the line.
    """
    for file in files:
        if file.suffix.lower() not in (".jsonl", ".ndjson") or file.stat().st_size > MOST_BYTES_LOOKED_AT:
            continue
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line, object_pairs_hook=_each_once)
                json.dumps(record, ensure_ascii=False).encode()
            except KeyError as error:
                raise TaskFileError(
                    f"{task.path}: its data {file}, line {number}: the key {error.args[0]!r} is given twice"
                ) from None
            except UnicodeEncodeError:
                raise TaskFileError(
                    f"{task.path}: its data {file}, line {number}: half of a character (\\ud800 to \\udfff alone), "
                    "which is no text: write whole characters"
                ) from None
            except (ValueError, RecursionError):
                continue


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _broken_line(file: Path) -> int | None:
    """The first line that is no JSON, from 1; None where all are, or where the file is no text."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    if line.strip():
                        parse_json_text(line)
                except ValueError:
                    return number
    except (OSError, ValueError):
        pass
    return None


def _not_text(file: Path) -> str | None:
    """What is wrong with a file of text that is no UTF-8; None where it is, or cannot be read at all."""
    try:
        content = file.read_bytes()
        content.decode()
    except UnicodeDecodeError as error:
        return not_utf8(content, error)
    except OSError:
        pass
    return None


def files_below(source: Path) -> list[Path]:
    """A file itself, or the files in a folder and its subfolders, hidden ones left out, sorted by path."""
    if source.is_file():
        return [source]
    return walk.files_below(source, hidden=False)


def remote_files(task: TaskFile) -> list[str]:
    """The addresses among the files of data that ``task`` names."""
    kwargs = task.settings.get("dataset_kwargs") or {}
    return [leaf for leaf in leaves(kwargs.get("data_files")) if "://" in leaf] if isinstance(kwargs, Mapping) else []


def leaves(value: Any) -> Iterator[str]:
    """Every text in lists and mappings of ``value``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
