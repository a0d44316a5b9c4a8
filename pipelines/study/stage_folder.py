"""The files of a stage's folder that whoever reads a stage relies on.

    config.json     the stage's description: kind, revision, identity, label, configuration, settings and inputs
    result.json     what the stage returned; a folder that has one is that of a finished stage
    metrics.jsonl   what happened meanwhile, a line of JSON for each logged step (:mod:`pipelines.store.metrics_log`)
    provenance.json where the result came from, of a finished stage (:mod:`pipelines.store.provenance`)

Beside them lie the stage's artifacts, and what the store adds to know that they are whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from calm_bench.atomic import write_json
from calm_bench.frozen import Frozen
from pipelines.common.record_file import parse_json, read_object, validated

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
PROVENANCE_FILE = "provenance.json"
REMEDY = "remove its folder, and calm-bench run STUDY makes the stage again"


class InputRecord(Frozen):
    """Which finished stage another one reads."""

    kind: str
    identity: str


class StageRecord(Frozen):
    """What ``config.json`` says of a stage."""

    kind: str
    revision: int
    identity: str
    label: str = ""
    config: dict[str, Any]
    settings: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, InputRecord] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> StageRecord:
        """The description of the stage in ``folder``, finished or not.

        Raises:
            FileNotFoundError: there is none.
            RecordError: the file is damaged, or a newer version wrote it.
        """
        path = folder / CONFIG_FILE
        return validated(cls, read_object(path, REMEDY), path, REMEDY)

    @classmethod
    def parse(cls, content: bytes, where: str) -> StageRecord:
        """As :meth:`load`, from a file's content that was read from ``where``."""
        return validated(cls, parse_json(content, where, REMEDY), where, REMEDY)


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` is that of a finished stage."""
    return (folder / RESULT_FILE).is_file()


def read_result(folder: Path) -> dict[str, Any]:
    """What the finished stage in ``folder`` returned.

    Raises:
        FileNotFoundError: the stage is not finished.
        RecordError: the file is damaged.
    """
    return read_object(folder / RESULT_FILE, REMEDY)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Keep what a stage returned.

    Raises:
        ValueError, TypeError: the result is not JSON, or holds NaN or infinity.
    """
    write_json(folder / RESULT_FILE, result)


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Keep what :meth:`pipelines.study.stage.Stage.description` says."""
    write_json(folder / CONFIG_FILE, description)
