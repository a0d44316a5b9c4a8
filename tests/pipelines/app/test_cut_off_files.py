"""A file that ends too early is told as what it is, and not as a user's wish to end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from calm_bench.errors import FAILED
from pipelines.app import cli

pytestmark = pytest.mark.slow


def command(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.app.cli import main; main()", *arguments],
        env=environment | {"PYTHONPYCACHEPREFIX": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_compiled_module_that_a_full_disk_cut_off(tmp_path: Path) -> None:
    cache = tmp_path / "compiled modules"
    assert command(cache, "studies").returncode == 0
    # One that is imported when the command has begun.
    (compiled,) = cache.rglob("catalogue.*.pyc")
    compiled.write_bytes(compiled.read_bytes()[:400])
    refused = command(cache, "studies")
    assert refused.returncode == FAILED
    said = " ".join(refused.stderr.split())
    found = re.search(r"a compiled module is cut off, as a full disk leaves it: (find .*-delete);", said)
    assert found is not None, said
    subprocess.run(["bash", "-c", found[1]], check=True)
    assert command(cache, "studies").returncode == 0


@pytest.mark.parametrize(("debug", "expected"), [("", SystemExit), ("1", EOFError)])
def test_any_file_that_ends_too_early(
    debug: str,
    expected: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    def read() -> None:
        raise EOFError("the numbers end after 7 of 12")

    reading: Callable[[], None] = app.command()(read)
    assert reading is read
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["calm-bench"])
    monkeypatch.setenv("CALM_BENCH_DEBUG", debug)
    with pytest.raises(expected) as ended:
        cli.main()
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == FAILED
        assert "EOFError: the numbers end after 7 of 12 (calm-bench --debug" in capsys.readouterr().err
