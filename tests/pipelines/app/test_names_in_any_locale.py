"""Names of files that are not ASCII, where the locale knows none but ASCII ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMAND = (sys.executable, "-c", "from calm_bench.command import main; main()")
STORE, CORPUS = "störe数", "kürpus数"
QUICK = (
    f"corpus.source={CORPUS}",
    "search.parameters.0.include=[token]",
    "model.training.num_flops=2e8",
    "evaluation.max_windows=6",
    "samples.num_prompts=0",
    "tracking.enabled=false",
)


def in_ascii(folder: Path, *arguments: str) -> str:
    """What the command prints where everything is ASCII but the bytes of its arguments."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    done = subprocess.run(
        [os.fsencode(part) for part in (*COMMAND, *arguments)],
        cwd=folder,
        env=own | LOCALE,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("ascii")


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [pytest.param(("--local",), id="in this process"), pytest.param((), id="on Ray", marks=pytest.mark.long)],
)
def test_store_and_corpus_keep_their_names(tmp_path: Path, where: tuple[str, ...]) -> None:
    (tmp_path / CORPUS).mkdir()
    for number in range(60):
        text = " ".join(str(number * place % 97) for place in range(150))
        (tmp_path / CORPUS / f"{number}.txt").write_text(text)
    told = in_ascii(tmp_path, "run", "smoke", *QUICK, "--store", STORE, *where, "--no-calibration", "--plain")
    assert r"st\u00f6re\u6570" in told
    assert {path.name for path in tmp_path.iterdir()} == {STORE, CORPUS}
    assert "token" in in_ascii(tmp_path, "leaderboard", "--store", STORE)
    in_ascii(tmp_path, "report", "--store", STORE)
    assert len(list((tmp_path / STORE / "studies").glob("*/report.html"))) == 1
