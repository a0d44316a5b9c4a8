"""A file that the project wrote earlier, read with one clear message where it is damaged or of a newer version."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from calm_bench.json_text import parse_json_text
from calm_bench.problems import ConfigurationError

Record = TypeVar("Record")


class RecordError(ConfigurationError):
    """A file that cannot be read as what it should be; the message names the file, the fault and what to do."""


def parse_json(content: bytes | str, where: Path | str, remedy: str) -> Any:
    """The JSON in ``content``, which was read from ``where``.

    Raises:
        RecordError: it is none.
    """
    try:
        return parse_json_text(content)
    except ValueError as error:
        raise damaged(where, f"not JSON: {error}", remedy) from None


def read_json(path: Path, remedy: str) -> Any:
    """The JSON in the file ``path``.

    Args:
        remedy: what to do about a damaged one, as the end of a message.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: the file is not JSON.
    """
    try:
        return parse_json(path.read_bytes(), path, remedy)
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from None


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """As :func:`read_json`, of a file that holds a JSON object."""
    found = read_json(path, remedy)
    if not isinstance(found, dict):
        raise damaged(path, "not a JSON object", remedy)
    return found


def validated(kind: type[Record] | TypeAdapter[Record], value: Any, where: Path | str, remedy: str) -> Record:
    """``value``, which was read from ``where``, as what it should be.

    Raises:
        RecordError: it is something else, or has fields that only a newer version can have written.
    """
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problems = error.errors()
        unknown = sorted({str(detail["loc"][-1]) for detail in problems if detail["type"] == "extra_forbidden"})
        if unknown and len(problems) == sum(detail["type"] == "extra_forbidden" for detail in problems):
            raise RecordError(
                f"{where} has fields that this calm-bench does not know ({', '.join(unknown)}): a newer version wrote "
                "it; update calm-bench"
            ) from None
        first = problems[0]
        at = ".".join(map(str, first["loc"]))
        raise damaged(where, f"{at}: {first['msg']}" if at else first["msg"], remedy) from None


def damaged(where: Path | str, fault: str, remedy: str) -> RecordError:
    """The error of a damaged file."""
    return RecordError(f"{where} is damaged ({fault}): {remedy}")
