"""LaTeX tables of the leaderboard: what LaTeX reads, whatever a label holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines.report.latex import escape, latex
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.view import View


def test_a_table_has_a_line_per_row_with_errors_and_exponents(ablation: list[Entry]) -> None:
    text = latex(Leaderboard(ablation))
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert len(body) == len(ablation)
    assert all(line.endswith("\\\\") for line in body)
    columns = text[text.index("\\begin{tabular}{") :].splitlines()[0].removeprefix("\\begin{tabular}{").rstrip("}")
    assert {line.count(" & ") for line in body} == {len(columns) - 1}
    assert r"$\pm$" in text
    assert r"{\times}10^{12}$" in text
    assert "±" not in text
    assert "\\caption{BrierLM and Brier-n times 100" in text


@pytest.mark.parametrize("label", ["50% of $x_1$ & #2", "a~b^c", r"\input{/etc/passwd}", "{"])
def test_a_label_is_text(make_entry: Callable[..., Entry], label: str) -> None:
    text = latex(Leaderboard([make_entry(label=label)]))
    assert escape(label) in text
    assert r"\input" not in text


def test_a_narrow_table_explains_only_its_columns(ablation: list[Entry]) -> None:
    def told(columns: str) -> str:
        text = latex(Leaderboard(ablation), View.parse(ablation, columns=columns))
        return next(line for line in text.splitlines() if line.startswith("\\caption"))

    explained = ("Brier-n", "Autoencoder:", "include", "FLOPs / token", "Pareto front")
    assert [word for word in explained if word in told("brierlm")] == []
    assert [word for word in explained if word in told("brierlm,brier_1,autoencoder_accuracy")] == list(explained[:2])
    assert "Training FLOPs include the autoencoder's." in told("brierlm,total_training_flops")
    assert "Pareto front" in told("brierlm,total_training_flops")
    assert "Training FLOPs and time include" in latex(Leaderboard(ablation))
    assert told("parameters").startswith("\\caption{Scores $\\pm$ one standard error")


def test_nothing_is_a_comment() -> None:
    assert latex(Leaderboard([])).startswith("% ")
