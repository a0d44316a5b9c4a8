"""Rows trained in unlike arithmetic: told apart, said, and never pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipelines.report.captions import caption
from pipelines.report.tables import markdown
from pipelines.results.entry import Entry, entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import pooled
from pipelines.results.unlike_arithmetic import unlike_arithmetic
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome

SETTINGS = {"model.kind": "token"}


@pytest.fixture
def row(make_outcome: Callable[..., TrialOutcome]) -> Callable[..., Entry]:
    study = Study(name="s")

    def make(seed: int = 0, **trained: Any) -> Entry:
        outcome = make_outcome(study, seed, "token", {**SETTINGS, "seed": seed})
        results: Mapping[str, Any] = {
            **outcome.results,
            "language_model": {**outcome.results["language_model"], **trained},
        }
        return entry_from(replace(outcome, results=results), study)

    return make


def test_seeds_of_unlike_arithmetic_are_not_pooled(row: Callable[..., Entry]) -> None:
    on_gpu = [row(seed, arithmetic="bf16 on cuda") for seed in range(2)]
    on_cpu = [row(seed, arithmetic="fp32 on cpu") for seed in range(2)]
    assert {entry.seeds for entry in pooled([*on_gpu, *on_cpu])} == {(0, 1)}
    assert len(pooled([*on_gpu, *on_cpu])) == 2
    assert len(pooled([on_gpu[0], on_cpu[1]])) == 2
    assert len(pooled(on_gpu)) == 1


def test_rows_from_before_it_was_told_are_of_a_cpu_and_keep_their_identity(row: Callable[..., Entry]) -> None:
    before, now = row(), row(arithmetic="fp32 on cpu")
    assert before.arithmetic == "fp32 on cpu"
    assert before.configuration == now.configuration
    assert row(arithmetic="bf16 on cpu").configuration != now.configuration


def test_a_board_says_it_where_rows_differ_and_only_there(row: Callable[..., Entry]) -> None:
    alike = [row(0, arithmetic="bf16 on cuda"), row(1, arithmetic="bf16 on cuda")]
    unlike = [alike[0], row(1, arithmetic="fp32 on cpu")]
    for entries, told in ((alike, False), (unlike, True)):
        (group,) = Leaderboard(entries).groups
        assert ("unlike arithmetic (bf16 on cuda, fp32 on cpu)" in caption(group)) is told
        assert ("Arithmetic" in markdown(Leaderboard(entries))) is told
    assert unlike_arithmetic(alike) == ""
