"""Studies by what people type: a name, the name of a folder, the beginning of one, or a YAML file."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.store.refs import StudyRef
from pipelines.store.study_of_file import SUFFIXES, studies_of_file
from pipelines.store.study_record import load_study

SHORTEST_IDENTITY = 4
"""Digits of an identity that are shown at least, so that a name does not stop to be unique with the next study."""


def how_to_begin(uri: object) -> str:
    """What to do about a store without a study: the command that runs one there, and how another store is named.

    Args:
        uri: as ``--store`` takes it.
    """
    return f"calm-bench run --store {shlex.quote(str(uri))} runs one there, and --store names another"


def how_to_run_again(folder: Path, uri: object) -> str | None:
    """The command that makes what the study in ``folder`` lacks, by its file there, which has all its settings; None
    where that file is missing or cannot be read."""
    record = load_study(folder)
    return None if record is None else record.command(str(uri))


def studies_called(name: str, folders: Iterable[Path]) -> list[Path]:
    """The folders that ``name`` means, in their order; none where it means nothing.

    A folder's whole name means this folder, a study's name all studies called so, anything else the folder whose name
    begins with it. Several such folders are several answers, of which the caller takes all or none. A YAML file's path
    means the studies that the file describes (:func:`pipelines.store.study_of_file.studies_of_file`).

    Raises:
        ConfigurationError: there is no such file, or it is no YAML.
    """
    if Path(name).suffix in SUFFIXES:
        return studies_of_file(Path(name), folders)
    known = [(folder, StudyRef.of(folder)) for folder in folders]
    exact = [folder for folder, ref in known if ref.folder_name == name]
    named = [folder for folder, ref in known if ref.name == name]
    return exact or named or ([folder for folder, _ in known if folder.name.startswith(name)] if name else [])


def choose_studies(names: Sequence[str], folders: Sequence[Path], uri: object) -> list[Path]:
    """The folders that ``names`` mean (:func:`studies_called`), in the order of ``folders``; all of them without names.

    Args:
        uri: what the store is called in messages.

    Raises:
        ConfigurationError: a name means no study, or is the beginning of several names; says which there are.
    """
    chosen: set[Path] = set()
    for name in names:
        found = studies_called(name, folders)
        if not found:
            refs = [StudyRef.of(folder) for folder in folders]
            known = sorted({ref.name for ref in refs})
            hint = did_you_mean(name, known) if known else ""
            raise ConfigurationError(f"no study {name!r} in the store {uri}{hint}")
        is_file = Path(name).suffix in SUFFIXES
        if len(found) > 1 and not is_file and any(StudyRef.of(folder).name != name for folder in found):
            listed = ", ".join(folder.name for folder in found)
            raise ConfigurationError(f"{name!r} is the beginning of several studies: {listed}; type more of one")
        chosen.update(found)
    return [folder for folder in folders if not names or folder in chosen]


def short_names(folders: Iterable[Path]) -> dict[Path, str]:
    """The shortest name that means one of ``folders`` alone: the study's, or one with a part of the identity."""
    refs = {folder: StudyRef.of(folder) for folder in folders}
    every = [ref.folder_name for ref in refs.values()]
    found = {}
    for folder, ref in refs.items():
        if sum(other.name == ref.name for other in refs.values()) == 1:
            found[folder] = ref.name
            continue
        found[folder] = ref.folder_name
        for length in range(SHORTEST_IDENTITY, len(ref.identity)):
            name = f"{ref.name}-{ref.identity[:length]}"
            if sum(other.startswith(name) for other in every) == 1:
                found[folder] = name
                break
    return found
