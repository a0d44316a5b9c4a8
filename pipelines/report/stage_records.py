"""Results of finished stages, read by kind and identity from a store that may be older than this code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from calm_bench.overrides import ConfigurationError
from pipelines.store.names import is_plain


class StageRecords:
    """What a store holds of the stages that a study's ``trials.json`` names. Nothing is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.json = cache(self._json)

    def folder(self, kind: str, identity: str) -> Path | None:
        """The finished stage's folder; None where there is none, or the names would leave the store."""
        if not (is_plain(kind) and is_plain(identity)):
            return None
        folder = self.root / "stages" / kind / identity
        return folder if (folder / "result.json").is_file() else None

    def _json(self, kind: str, identity: str, name: str = "result.json") -> dict[str, Any]:
        """A JSON file of a stage; empty where the stage or the file is missing."""
        folder = self.folder(kind, identity)
        if folder is None or not (folder / name).is_file():
            return {}
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}

    def of_trial(self, trial: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Kind and identity of the trial's finished stages."""
        for kind, identity in (trial.get("stages") or {}).items():
            if self.folder(str(kind), str(identity)) is not None:
                yield str(kind), str(identity)


def read_json(path: Path) -> Any:
    """What ``path`` holds; None where there is no such file.

    Raises:
        ConfigurationError: it is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged: {error}. calm-bench run writes it again.") from error
