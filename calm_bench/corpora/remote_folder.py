"""The files of a folder at a place that lists its folders: object stores, ftp, sftp, smb and others; all but HTTP."""

from __future__ import annotations

from typing import Any

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.remote_file import ask, file_system

OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "oci", "oss", "s3", "s3a"})
"""Places that list all that is below a folder in a few requests. Of others ``find`` goes from folder to folder, and
leaves out those that cannot be listed."""


def infos_below(source: str) -> dict[str, Any]:
    """What the place tells of each file of a folder and of all folders below it, by its name relative to that.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    files, path = file_system(source)
    files.invalidate_cache()
    folder = f"{path.rstrip('/')}/"
    if source.partition("://")[0] in OBJECT_STORES:
        found: dict[str, Any] = ask(source, lambda: files.find(path, detail=True))
    else:
        found = _walked(files, source, path)
    return {file.removeprefix(folder): info for file, info in found.items() if file.startswith(folder)}


def _walked(files: Any, source: str, top: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    folders = [top]
    while folders:
        folder = folders.pop()
        for info in _listed(files, source, folder.removeprefix(top.rstrip("/")), folder):
            name = info["name"].rstrip("/")
            if info["type"] != "directory":
                found[info["name"]] = info
            elif name != folder.rstrip("/") and not name.rpartition("/")[2].startswith("."):
                folders.append(name)
    return found


def _listed(files: Any, source: str, below: str, folder: str) -> list[dict[str, Any]]:
    address = f"{source.rstrip('/')}{below}"
    try:
        return ask(address, lambda: files.ls(folder, detail=True))
    except CorpusError as error:
        raise CorpusError(
            f"{error}. Nothing below corpus.source={source} is left out unsaid: see whether this folder may be "
            "listed, or name folders or files that may"
        ) from error
