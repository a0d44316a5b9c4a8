"""Rows of a study whose settings the search of another one chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from calm_bench.overrides import apply_settings
from pipelines.report.captions import caption
from pipelines.results.final_rows import rows_of
from pipelines.results.leaderboard import Leaderboard
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.identity import study_identity
from pipelines.study.trial import TrialOutcome

MakeOutcome = Callable[..., TrialOutcome]
CHOSEN: dict[str, Any] = {"model.training.batch_size": 2, "model.training.learning_rate": 2e-3}
EFFORT = {"token": {"trials": 36, "flops": 2.1e13}}


def study(**sections: Any) -> Study:
    tuned_by = {"study": "tuned-frontier", "seeds": [0], "settings": CHOSEN, "effort": EFFORT}
    return Study.model_validate({"name": "k-ablation", "seed": 4, "tuned_by": tuned_by} | sections)


@pytest.mark.parametrize(
    ("label", "settings", "trials"),
    [
        ("token", {}, 36.0),
        ("K=4", {}, None),  # nobody tuned it
        ("token", {"seed": 0}, None),  # the seed that chose
        ("token", {"model.training.learning_rate": 1e-3}, None),  # not what was chosen
    ],
)
def test_a_row_tells_of_the_search_that_chose_its_settings(
    label: str, settings: dict[str, Any], trials: float | None, make_outcome: MakeOutcome
) -> None:
    whole = study()
    (row,) = rows_of([make_outcome(whole, 0, label, {"model.kind": "token"} | CHOSEN | settings)], whole)
    found = {measure.key: measure.value for measure in row.measures}
    assert found.get("search_trials") == trials
    assert found.get("search_flops") == (None if trials is None else 2.1e13)
    told = (
        "Trials tried: settings that a search compared, on validation text and with other seeds, to find the row's own."
    )
    assert (told in caption(Leaderboard([row]).groups[0])) is (trials is not None)


@pytest.mark.parametrize(
    "other",
    [
        ["model.head={kind: custom, target: my_heads:GaussianHead}"],
        ["model.kind=custom", "model.custom.target=my_family:Bigram"],
        ["model.head.kind=diffusion"],
    ],
)
def test_a_model_of_another_kind_was_in_no_trial_of_the_search(other: list[str]) -> None:
    """It has the label of the row whose head or family it takes the place of."""
    for settings, told in (([], True), (other, False)):
        default = resolve_study("k-ablation", ["search.parameters.0.include=[K=4]", *settings])
        (parameter,) = default.search.parameters
        assert parameter.choices is not None
        assert default.tuned_by is not None
        experiment = apply_settings(default.experiment(), parameter.choices["K=4"])
        assert (default.tuned_by.effort_for("K=4", experiment) is not None) is told


def test_a_study_without_one_is_the_study_it_was() -> None:
    alone = Study.model_validate({"name": "k-ablation"})
    assert "tuned_by" not in alone.model_dump(mode="json")
    assert study_identity(study()) == study_identity(study(tuned_by=None))


def test_a_search_without_trials_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        study(
            tuned_by={"study": "x", "seeds": [0], "settings": CHOSEN, "effort": {"token": {"trials": 0, "flops": 1.0}}}
        )


def test_every_row_of_the_default_study_tells_of_one(make_outcome: MakeOutcome) -> None:
    default = resolve_study("k-ablation")
    (parameter,) = default.search.parameters
    assert parameter.choices is not None
    assert parameter.include is not None
    assert default.tuned_by is not None
    for label in parameter.include:
        experiment = apply_settings(default.experiment(), parameter.choices[label])
        assert default.tuned_by.effort_for(label, experiment) is not None, label
    assert default.seed not in default.tuned_by.seeds
