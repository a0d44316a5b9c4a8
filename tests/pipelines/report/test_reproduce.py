"""The commands that do a study again."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from pipelines.report.collect import collect
from pipelines.report.environment import Environment
from pipelines.report.reproduce import commands_for, differences_from_shipped
from pipelines.report.stage_records import StageRecords
from pipelines.store.study_record import resolved_yaml
from pipelines.study.catalogue import resolve_study
from pipelines.study.identity import study_identity


def again(builder: Any, name: str, configuration: str) -> str:
    found = commands_for(name, configuration, Environment(StageRecords(builder.store.root), []))
    return next(command.text for command in found if command.text.startswith("calm-bench run"))


def test_a_shipped_study_is_run_by_its_name(builder: Any) -> None:
    assert again(builder, "k-ablation", resolved_yaml(resolve_study("k-ablation"))) == "calm-bench run k-ablation"


def test_what_differs_is_an_override_that_gives_the_same_study(builder: Any) -> None:
    changes = ["seed=3", "model.training.learning_rate=0.001", "corpus.source=my texts/a.jsonl", "execution.store=x"]
    study = resolve_study("k-ablation", changes)
    command = again(builder, "k-ablation", resolved_yaml(study))
    _, _, name, *overrides = shlex.split(command)
    assert len(overrides) == 3
    found = resolve_study(name, overrides)
    assert found.experiment() == study.experiment()
    assert found.search == study.search


def test_a_study_of_ones_own_is_run_from_its_file(builder: Any, tmp_path: Any) -> None:
    study = resolve_study("k-ablation", ["seed=5"]).model_copy(update={"name": "my-own"})
    text = resolved_yaml(study)
    assert again(builder, "my-own", text) == "calm-bench run ./study.yaml"
    (tmp_path / "study.yaml").write_text(text)
    assert resolve_study(str(tmp_path / "study.yaml")) == study


def test_another_search_cannot_be_said_in_overrides() -> None:
    settings = yaml.safe_load(resolved_yaml(resolve_study("k-ablation")))
    settings["search"]["parameters"] = [{"name": "seed", "values": [1, 2]}]
    assert differences_from_shipped("k-ablation", yaml.safe_dump(settings)) is None


def test_the_page_names_code_python_and_corpus(builder: Any) -> None:
    study = collect(builder.store, [builder.study(2)]).studies[0]
    assert study.commands[0].text == "git checkout " + "0123456789" * 4
    assert any("needs Python 3.11.7" in note for note in study.notes)
    assert study_identity(resolve_study("k-ablation"))
