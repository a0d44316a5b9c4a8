"""Settings of the command line against those of the search: nothing given is lost silently."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from calm_bench.family_registry import lacks_part
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.identity import study_identity
from pipelines.study.space import grid_points, settings_at

LOST = {
    "autoencoder.training.num_steps=50": ("k-ablation", "K=1 (there: 300), K=2 (there: 500)"),
    # Another budget of the same training takes the place of the one that is given.
    "autoencoder.training.num_tokens=1e5": ("k-ablation", "K=1 (there: None), K=2 (there: None)"),
    "model.head.kind=flow": ("heads", "energy (there: energy), diffusion"),
    # Another kind of head has settings of its own.
    "model.head.num_samples=4": ("heads", "diffusion (there: its own default)"),
    "model.head={kind: energy, alpha: 1.5}": ("heads", "diffusion"),
    "model.head.width=96": ("tune-head", "reach no row, since the search varies model.head.width"),
    "model.training.learning_rate=1e-3": ("tune-head", "values: [0.001]"),
}


def experiments(study: Study) -> dict[str, object]:
    base = study.experiment()
    return {
        str(point["model"]): apply_settings(base, settings_at(study.search, point))
        for point in grid_points(study.search)
    }


@pytest.mark.parametrize("given", LOST)
def test_a_setting_that_the_search_overrides_is_refused_with_the_rows(given: str) -> None:
    name, said = LOST[given]
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        resolve_study(name, [given])


@pytest.mark.parametrize("given", ["autoencoder.training.num_steps=50", "autoencoder.latent_size=20"])
def test_the_way_out_that_is_named_works(given: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        resolve_study("k-ablation", [given])
    every = re.search(r"For every row: (\S+?)(?:\.$|\. |$)", str(error.value))
    rest = re.search(r"'(search\.parameters\.0\.include=\S+)'", str(error.value))
    assert every is not None
    for assignments in ([every[1]], [given, rest[1]] if rest else [every[1]]):
        study = resolve_study("k-ablation", assignments)
        path, _, value = given.partition(".")
        key, _, value = value.partition("=")
        for label, experiment in experiments(study).items():
            if lacks_part(experiment.model.kind, given.partition("=")[0]):  # type: ignore[attr-defined]
                continue
            found = getattr(experiment, path)
            for part in key.split("."):
                found = getattr(found, part)
            assert str(found) == value, label


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["model.kind=custom", "model.custom.target=mine:Network"], ["K=1", "K=2", "K=4"]),  # one has a head of its own
        (["model.kind=multi_token"], ["K=1", "K=2", "K=4"]),
    ],
)
def test_rows_that_cannot_be_of_the_kind_are_not_advised(given: list[str], labels: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="there: patch") as error:
        resolve_study("k-ablation", given)
    said = re.search(r"the search sets it there\. For rows that can: (.+)$", str(error.value))
    assert said is not None, error.value
    (rest,) = shlex.split(said[1])
    study = resolve_study("k-ablation", [*given, rest])
    assert list(experiments(study)) == labels


def test_what_no_row_overrides_is_as_it_was() -> None:
    study = resolve_study("k-ablation", ["model.training.learning_rate=1e-4", "evaluation.max_windows=7"])
    assert {e.model.training.learning_rate for e in experiments(study).values()} == {1e-4}  # type: ignore[attr-defined]


def test_a_fixed_length_takes_the_place_of_another_length() -> None:
    study = resolve_study("k-ablation", ["search.fixed.autoencoder.training.num_tokens=1e5"])
    lengths = {
        (e.autoencoder.training.num_steps, e.autoencoder.training.num_tokens)  # type: ignore[attr-defined]
        for e in experiments(study).values()
    }
    assert lengths == {(None, 1e5), (700, None)}  # the latter of rows without an autoencoder


def test_fixing_nothing_leaves_a_study_its_name() -> None:
    study = resolve_study("k-ablation")
    assert "fixed" not in study.search.model_dump(mode="json")
    assert study_identity(study) != study_identity(resolve_study("k-ablation", ["search.fixed.seed=3"]))


def test_an_unknown_fixed_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean"):
        resolve_study("k-ablation", ["search.fixed.model.chunk_sice=2"])


def test_rows_without_the_part_lose_nothing() -> None:
    with pytest.raises(ConfigurationError) as error:
        resolve_study("k-ablation", ["model.head.num_blocks=3"])
    assert "K=4 flow" in str(error.value)
    assert "patch K=4 (" not in str(error.value)


def test_what_is_fixed_passes_by_rows_without_the_part() -> None:
    rows = experiments(resolve_study("k-ablation", ["search.fixed.model.head.kind=diffusion"]))
    kinds = {label: row.model.kind if row.model.kind != "calm" else row.model.head.kind for label, row in rows.items()}  # type: ignore[attr-defined]
    assert kinds["patch K=4"] == "patch"
    assert {kinds[label] for label in ("K=1", "K=2", "K=4", "K=4 flow")} == {"diffusion"}


@pytest.mark.parametrize(
    ("choices", "given", "reached"),
    [
        ({"a": {}, "b": {}}, "evaluation.max_windows=null", None),
        ({"2": {}, "b: c": {}, "d, e": {}, "it's": {}}, "evaluation.max_windows=7", 7),
        ({"a": {}}, "evaluation.max_windows=7", 7),
    ],
)
def test_the_way_out_is_written_as_shell_and_yaml_read_it(
    tmp_path: Path, choices: dict[str, dict[str, object]], given: str, reached: object
) -> None:
    """Nothing is no word, a label of digits no number, and signs of YAML and of the shell are part of labels."""
    bundles = {**choices, "own": {"evaluation.max_windows": 5}}
    content = {"model": {"kind": "token"}, "search": {"parameters": [{"name": "which", "choices": bundles}]}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError) as error:
        resolve_study(str(file), [given])
    said = re.search(r"For every row: (.+)\. For the others alone, leave those out: (.+)$", str(error.value))
    assert said is not None, error.value
    (every,), (rest,) = shlex.split(said[1]), shlex.split(said[2])
    for assignments, labels in (([every], list(bundles)), ([given, rest], list(choices))):
        study = resolve_study(str(file), assignments)
        points = list(grid_points(study.search))
        assert [point["which"] for point in points] == labels
        rows = [apply_settings(study.experiment(), settings_at(study.search, point)) for point in points]
        assert {row.evaluation.max_windows for row in rows} == {reached}


@pytest.mark.parametrize("form", ["values: [8, 16]", "low: 8, high: 16, integer: true"])
def test_a_varied_setting_is_given_as_the_message_says(tmp_path: Path, form: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "model: {kind: token}\n"
        f"search: {{sampler: random, num_trials: 2, parameters: [{{name: evaluation.max_windows, {form}}}]}}\n"
    )
    for given in ("7", "null"):
        with pytest.raises(ConfigurationError) as error:
            resolve_study(str(file), [f"evaluation.max_windows={given}"])
        (way,) = shlex.split(str(error.value).partition(": give ")[2])
        (value,) = resolve_study(str(file), [way]).search.parameters[0].values or ()
        assert value == (None if given == "null" else 7)
