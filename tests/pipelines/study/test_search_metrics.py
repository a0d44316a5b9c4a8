"""What a search goes by: numbers that kinds of stages tell, those from elsewhere too."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.search.objectives import objective_values, violations
from pipelines.study.catalogue import resolve_study
from pipelines.study.search_metrics import search_metric
from pipelines.study.search_settings import Constraint, Objective, Search
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

RESULTS = {
    "autoencoder": {"accuracy": 0.5},
    "language_model": {
        "validation": {"loss": 2.5},
        "training_flops": 7,
        "inference_flops_per_token": 3,
        "parameters": 11,
    },
    "evaluation": {"brierlm": 4.5, "training_flops": "not this one"},
    "rhyming": {"rhymes": 8, "brierlm": 99.0},
}


@pytest.fixture
def rhyming() -> StageKind:
    kind = StageKind(
        "rhyming",
        lambda *_: {},
        reads=("tokens", "language_model"),
        search_metrics={"rhymes": lambda result: float(result["rhymes"]), "brierlm": lambda _: 99.0},
    )
    if kind.name not in STAGE_KINDS.names():
        STAGE_KINDS.register(kind.name, kind)
    return STAGE_KINDS.get(kind.name)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("brierlm", 4.5),
        ("validation_loss", 2.5),
        ("training_flops", 7.0),
        ("inference_flops_per_token", 3.0),
        ("parameters", 11.0),
        ("autoencoder_accuracy", 0.5),
        ("rhymes", 8.0),
    ],
)
@pytest.mark.usefixtures("rhyming")
def test_a_metric_is_read_from_its_stage(metric: str, value: float) -> None:
    assert objective_values([Objective(metric=metric)], RESULTS) == (value,)
    bound = Constraint(metric=metric, at_least=value + 1)
    assert violations([bound], RESULTS) == (f"{bound} (found {value:.6g})",)
    without = {kind: result for kind, result in RESULTS.items() if kind != search_metric(metric).kind}
    assert violations([bound], without) == (), "a trial without such a stage has nothing to break"


def write(folder: Path, search: str, extra: str = "[]") -> str:
    path = folder / "study.yaml"
    path.write_text(f"model: {{kind: token}}\nextra_stages: {extra}\nsearch: {search}\n")
    return str(path)


@pytest.mark.usefixtures("rhyming")
def test_what_a_kind_from_elsewhere_tells_can_be_searched_by(tmp_path: Path) -> None:
    by_rhymes = (
        "{sampler: tpe, num_trials: 3, objectives: [{metric: rhymes, direction: maximize}], "
        "parameters: [{name: seed, values: [1]}]}"
    )
    study = resolve_study(write(tmp_path, by_rhymes, "[{kind: rhyming}]"))
    assert study.search.objectives[0].metric == "rhymes"
    assert study.split == "validation", "it may be a score, and scores choose on validation text"
    with pytest.raises(ConfigurationError, match=r"search.objectives: rhymes is told by the stage rhyming, for which"):
        resolve_study(write(tmp_path, by_rhymes))
    bounded = "{constraints: [{metric: rhymes, at_least: 3}]}"
    with pytest.raises(ConfigurationError, match=r"search.constraints: rhymes .* add '{kind: rhyming}' to extra_st"):
        resolve_study(write(tmp_path, bounded))


@pytest.mark.usefixtures("rhyming")
def test_an_objective_without_a_direction_goes_the_way_that_is_better(tmp_path: Path) -> None:
    """A loss that is pushed up would make `final` train the worst trials again."""
    metrics = ["brierlm", "validation_loss", "training_flops", "inference_flops_per_token", "parameters"]
    given = ", ".join(f"{{metric: {metric}}}" for metric in metrics)
    found = resolve_study(write(tmp_path, f"{{objectives: [{given}]}}")).search.objectives
    assert [str(one) for one in found] == ["maximize brierlm"] + [f"minimize {metric}" for metric in metrics[1:]]
    (upwards,) = resolve_study(
        write(tmp_path, "{objectives: [{metric: validation_loss, direction: maximize}]}")
    ).search.objectives
    assert upwards.direction == "maximize", "what is said is done"
    with pytest.raises(ConfigurationError, match=r"say which rhymes is better.* direction: minimize"):
        resolve_study(write(tmp_path, "{objectives: [{metric: rhymes}]}", "[{kind: rhyming}]"))


def test_what_no_kind_tells_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"search.objectives: no kind .* 'brierml'; did you mean 'brierlm'"):
        resolve_study(write(tmp_path, "{objectives: [{metric: brierml}]}"))
    with pytest.raises(ConfigurationError, match="autoencoder_accuracy is told by the stage autoencoder, which not ev"):
        resolve_study(write(tmp_path, "{objectives: [{metric: autoencoder_accuracy}]}"))
    assert resolve_study(write(tmp_path, "{constraints: [{metric: autoencoder_accuracy, at_least: 0.9}]}"))


def test_what_goes_by_no_score_leaves_the_text_alone() -> None:
    for metric, chooses in (("validation_loss", False), ("parameters", False), ("brierlm", True), ("rhymes", True)):
        assert Search(sampler="tpe", num_trials=1, objectives=(Objective(metric=metric),)).chooses_by_score is chooses
