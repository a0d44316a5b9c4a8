"""Where commands compute that read a model."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from calm_bench.devices import resolve_device
from pipelines.app.cli import app


def options(command: Any, name: str) -> list[tuple[str, Any]]:
    """Those called ``name`` of a command and of all below it, with the command's name."""
    found = [(command.name, parameter) for parameter in command.params if name in parameter.opts]
    below = getattr(command, "commands", {}).values()
    return found + [each for one in below for each in options(one, name)]


def test_every_command_uses_a_gpu_where_there_is_one() -> None:
    found = options(typer.main.get_command(app), "--device")
    assert {name for name, _ in found} >= {"eval", "generate", "probe", "compare", "context-sweep"}
    assert {parameter.default for _, parameter in found} == {"auto"}


@pytest.mark.parametrize(("count", "expected"), [(2, "cuda"), (0, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(count: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert resolve_device("auto") == expected
