"""Settings by path are those that the command line takes, and the schema accepts what ships."""

from __future__ import annotations

import copy

import pytest
import yaml

from calm_bench.problems import check_path, field_paths
from pipelines.study.catalogue import resolve_study, shipped_studies
from pipelines.study.config import Study
from pipelines.study.search_metrics import check_search_metrics
from pipelines.study.setting_paths import NO_DEFAULT, setting_paths, study_schema


def test_every_path_is_one_that_can_be_set_and_none_is_missing() -> None:
    listed = [one.path for one in setting_paths()]
    assert len(listed) == len(set(listed))
    for path in listed:
        check_path(Study, path)
    leaves = {path for path in field_paths(Study) if "[" not in path}
    for path in ("model.training.warmup_steps", "autoencoder.training.num_steps", "evaluation.num_samples", "seed"):
        assert path in listed
        assert path in leaves


def test_defaults_and_presets_stand_beside_a_path() -> None:
    found = {one.path: one for one in setting_paths()}
    assert found["seed"].default == "0"
    assert found["model.training.warmup_steps"].default != NO_DEFAULT
    assert found["model.training.num_flops"].presets["tiny"] == "3500000000000.0"
    assert "energy" in found["model.head.kind"].type
    assert found["execution.store"].description.startswith("Folder of all results")
    described = study_schema()["$defs"]["Execution"]["properties"]["store"]["description"]
    assert described == found["execution.store"].description


@pytest.mark.parametrize("name", [study.name for study in shipped_studies()])
def test_the_schema_takes_what_ships_and_refuses_a_misspelt_key(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(study_schema())
    path = next(study.path for study in shipped_studies() if study.name == name)
    written = yaml.safe_load(path.read_text())
    assert list(validator.iter_errors(written)) == []
    assert list(validator.iter_errors(resolve_study(name).model_dump(mode="json"))) == []
    assert list(validator.iter_errors({"x-shared": [1], **written})) == []
    wrong = copy.deepcopy(written)
    wrong["modle"] = {}
    assert list(validator.iter_errors(wrong))


@pytest.mark.parametrize(
    ("model", "name", "known", "other"),
    [
        ("Objective", "metric", "validation_loss", "rhymes"),
        ("Constraint", "metric", "autoencoder_accuracy", "rhymes"),
        ("Corpus", "source", "markov", "texts/my-text.jsonl"),
        ("Tokens", "tokenizer", "bpe", "some/tokenizer"),
        ("LanguageModel", "kind", "patch", "a_family_from_elsewhere"),
        ("Benchmarks", "scorer", "relative_energy", "a_scorer_from_elsewhere"),
    ],
)
def test_an_open_setting_is_completed_and_takes_other_values(model: str, name: str, known: str, other: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = study_schema()
    setting = schema["$defs"][model]["properties"][name]
    assert known in setting["anyOf"][0]["enum"]
    assert setting["description"]
    validator = jsonschema.Draft202012Validator(setting)
    assert validator.is_valid(known)
    assert validator.is_valid(other)
    assert not validator.is_valid(7)


def test_every_metric_that_is_completed_can_be_an_objective_or_a_bound() -> None:
    metrics = {
        name: study_schema()["$defs"][name]["properties"]["metric"]["anyOf"][0]["enum"]
        for name in ("Objective", "Constraint")
    }
    search = {"objectives": [{"metric": one} for one in metrics["Objective"]]}
    search["constraints"] = [{"metric": one, "at_least": 0} for one in metrics["Constraint"]]
    check_search_metrics(Study.model_validate({"name": "all", "search": search}))
