"""Figure and table of a paper: what TeX makes of them, in a two-column article."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.report.figure import draw
from pipelines.report.latex import latex
from pipelines.report.pgf import TEX_SYSTEMS
from pipelines.results.columns import MODEL, SCORE, TRAINING
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.view import View

pytestmark = pytest.mark.slow

COLUMN_INCHES = 3.17
"""Of a two-column article: 229.5 points."""
ARTICLE = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs}
\usepackage{pgf}
\begin{document}
\begin{figure}
\input{column.pgf}
\caption{Score against compute.}
\end{figure}
\input{wide.tex}
\input{narrow.tex}
\end{document}
"""
COMPLAINTS = re.compile(r"^(?:!.*|Overfull.*|Missing character.*|.*Warning: (?!Label).*)", re.MULTILINE)
HOSTILE = ("K=4 & 50% of $x_1$ #2", r"\input{/etc/passwd}", "a~b^c {", "learning_rate=1e-3 – wide")  # noqa: RUF001


def tex(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here: apt-get install texlive-pictures (for xelatex: texlive-xetex)")
    return path


def compiled(system: str, folder: Path) -> str:
    """What the compiler wrote of ``paper.tex`` in ``folder``."""
    done = subprocess.run(
        [system, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    log = (folder / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    return log


def drawn_by_command(rows: Sequence[Entry], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: matplotlib keeps a TeX that it has once started."""
    (folder / "rows.json").write_text(Leaderboard(rows).to_json(), encoding="utf-8")
    return subprocess.run(
        [Path(sys.executable).parent / "calm-bench", "leaderboard", "--merge", "rows.json", "--picture", "column.pgf"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("system", ["pdflatex", "xelatex"])
def test_figure_and_tables_fit_a_two_column_article(system: str, ablation: list[Entry], tmp_path: Path) -> None:
    path, board = tex(system), Leaderboard(ablation)
    draw(board, tmp_path / "column.pgf", size=(COLUMN_INCHES, 2.3))
    wide, narrow = latex(board), latex(board, View(columns=(MODEL, SCORE, TRAINING)))
    assert wide.startswith("\\begin{table*}")
    assert narrow.startswith("\\begin{table}")
    for name, text in (("paper", ARTICLE), ("wide", wide), ("narrow", narrow)):
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
    assert COMPLAINTS.findall(compiled(path, tmp_path)) == []
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_labels_are_text_to_tex(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    path = tex("pdflatex")
    rows = [
        make_entry(label=label, trial=number, training_flops=(1 + number) * 1e12, brierlm=4.0 + 3 * number)
        for number, label in enumerate(HOSTILE)
    ]
    draw(Leaderboard(rows), tmp_path / "column.pgf", size=(COLUMN_INCHES, 2.3))
    (tmp_path / "wide.tex").write_text(latex(Leaderboard(rows)), encoding="utf-8")
    (tmp_path / "narrow.tex").write_text("", encoding="utf-8")
    (tmp_path / "paper.tex").write_text(ARTICLE, encoding="utf-8")
    log = compiled(path, tmp_path)
    assert "passwd" not in log
    assert not re.search(r"^(!|Missing character)", log, re.MULTILINE)
    drawn = (tmp_path / "column.pgf").read_text(encoding="utf-8")
    assert "\\%" in drawn
    assert "\\input{/etc" not in drawn


def test_a_label_that_tex_has_no_glyph_for_says_so(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    tex("pdflatex")
    only = tmp_path / "pdflatex"
    only.symlink_to(tex("pdflatex"))
    done = drawn_by_command([make_entry(label="模型")], tmp_path, path=str(tmp_path))
    assert done.returncode == 2, done
    assert re.search(r"cannot measure .*Unicode character.*\.pdf", done.stderr), done


def test_a_pgf_without_tex_names_the_format_that_needs_none(
    ablation: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, path = Leaderboard(ablation), tmp_path / "column.pgf"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"measured by .*xelatex.*, and none is here; \.pdf needs none"):
        draw(board, path, size=(3.3, 2.4))
    assert not path.exists()
    draw(board, path.with_suffix(".pdf"), size=(3.3, 2.4))


def test_a_tex_that_cannot_measure_says_why(ablation: list[Entry], tmp_path: Path) -> None:
    """One without the package pgf complains when it is asked."""
    program = tmp_path / TEX_SYSTEMS[0]
    program.write_text("#!/bin/sh\ncat > /dev/null\necho '! LaTeX Error: File `pgf.sty'\"'\"' not found.'\nexit 1\n")
    program.chmod(0o755)
    done = drawn_by_command(ablation, tmp_path, path=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 2, done
    assert re.search(r"cannot measure .*pgf\.sty.*texlive-pictures.*\.pdf", done.stderr), done
    assert not (tmp_path / "column.pgf").exists()
