"""Plug-ins by name: what is said of a name that none has, and where others add theirs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from calm_bench.corpora.source import CORPORA
from calm_bench.heads import HEADS
from calm_bench.registry import Registry, UnknownName
from evals.scorers import SCORERS
from pipelines.study.stage_kind import STAGE_KINDS


@pytest.mark.parametrize(
    ("registry", "name", "said"),
    [
        (HEADS, "enrgy", "unknown head 'enrgy'; did you mean 'energy'?"),
        (CORPORA, "markv", "unknown corpus source 'markv'; did you mean 'markov'?"),
        (SCORERS, "decodr", "unknown scorer 'decodr'; did you mean 'decoder'?"),
        (STAGE_KINDS, "tokns", "unknown kind of stage 'tokns'; did you mean 'tokens'?"),
    ],
)
def test_an_unknown_name_is_told_in_the_singular(registry: Registry[Any], name: str, said: str) -> None:
    with pytest.raises(UnknownName, match=rf"^{re.escape(said)}$"):
        registry.get(name)


def test_a_name_is_given_once() -> None:
    registry: Registry[str] = Registry("things", {}, one="thing")
    registry.register("a", "json:dumps")
    registry.register("a", "json:dumps")
    with pytest.raises(ValueError, match=r"^thing 'a' is already registered$"):
        registry.register("a", "json:loads")


def test_other_distributions_add_to_the_groups_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    asked: list[str] = []

    def found(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("mine", "json:dumps", group)]

    monkeypatch.setattr("calm_bench.registry.entry_points", found)
    registries = (HEADS, CORPORA, SCORERS, STAGE_KINDS)
    for registry in registries:
        assert Registry[Any](registry.group, {}, one=registry.one).names() == ["mine"]
    assert asked == ["calm_bench.heads", "calm_bench.corpora", "calm_bench.scorers", "calm_bench.stage"]
