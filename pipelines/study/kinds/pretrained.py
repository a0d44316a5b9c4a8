"""The folder that a stage begins from, whose content stands in its configuration and whose path in its settings."""

from __future__ import annotations

from pathlib import Path

from calm_bench.errors import UsageError
from calm_bench.fingerprint import folder_identity
from pipelines.study.stage import Stage


class ChangedFolder(UsageError, ValueError):
    """A folder does not hold what a stage was described with."""

    input_explains = False


def pretrained_folder(stage: Stage, section: str) -> Path | None:
    """Where the trained part lies that the stage begins from; None where it begins from nothing.

    Raises:
        ChangedFolder: the folder is not here, or holds something else than when the study was read.
    """
    described = stage.config[section].get("pretrained")
    if described is None:
        return None
    folder = Path(stage.settings["pretrained"])
    if not folder.is_dir():
        raise ChangedFolder(f"{section}.pretrained.folder: {folder} is not on this machine")
    if folder_identity(folder) != described["folder"]:
        raise ChangedFolder(
            f"{section}.pretrained.folder: what {folder} holds has changed since the study was read: the same command "
            "goes on with what it holds now"
        )
    return folder
