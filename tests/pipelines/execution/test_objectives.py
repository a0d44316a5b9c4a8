from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError

from pipelines.execution.events import StageFinished
from pipelines.search.objectives import constraint_excesses, violations
from pipelines.search.trial_queue import TrialQueue, TrialResult
from pipelines.search.trial_storage import Journal
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.study.search_settings import Constraint, Search

ACCURATE = Constraint(metric="autoencoder_accuracy", at_least=0.999)
CHEAP = Constraint(metric="inference_flops_per_token", at_most=1e6)


def _results(accuracy: float | None, flops: float) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {"language_model": {"inference_flops_per_token": flops}}
    return results | ({} if accuracy is None else {"autoencoder": {"accuracy": accuracy}})


def test_constraints_are_broken_by_how_much_and_in_words() -> None:
    excesses = constraint_excesses((ACCURATE, CHEAP), _results(0.95, 5e5))
    assert excesses == {ACCURATE: pytest.approx(0.049), CHEAP: -5e5}
    assert violations((ACCURATE, CHEAP), _results(0.95, 5e5)) == ("autoencoder_accuracy >= 0.999 (found 0.95)",)
    assert violations((ACCURATE, CHEAP), _results(0.999, 1e6)) == ()
    assert violations((ACCURATE, CHEAP), _results(None, 2e6)) == (
        "inference_flops_per_token <= 1e+06 (found 2e+06)",
    ), "a token model has no autoencoder to be inaccurate"


def test_a_constraint_has_one_bound() -> None:
    for bounds in ({}, {"at_least": 1, "at_most": 2}):
        with pytest.raises(ValidationError, match="exactly one of at_least and at_most"):
            Constraint.model_validate({"metric": "brierlm", **bounds})


def test_optuna_knows_what_is_feasible(tmp_path: Path) -> None:
    """Of two objectives: the better one of the Pareto front breaks the constraint, so the other is the front."""
    search = Search.model_validate(
        {
            "sampler": "tpe",
            "num_trials": 12,
            "concurrent_trials": 1,
            "parameters": [{"name": "x", "low": 0.0, "high": 1.0}],
            "objectives": [{"metric": "brierlm"}, {"metric": "training_flops", "direction": "minimize"}],
            "constraints": [{"metric": "brierlm", "at_most": 0.5}],
        }
    )
    trial_queue = TrialQueue(Journal(tmp_path / "journal", "study"), search, seed=0)
    found = []
    while new := trial_queue.new_trials():
        for asked in new:
            x = float(asked.point["x"] or 0)
            found.append(x)
            trial_queue.tell(asked.number, TrialResult([x, 1.0], constraints={"small": x - 0.5}))
    study = optuna.load_study(study_name="study", storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal"))))
    assert [trial.params["x"] for trial in study.best_trials] == [max(x for x in found if x <= 0.5)]


def test_a_trial_that_breaks_a_constraint_is_shown_as_such(
    run: Callable[..., list[Any]], store: Store, tiny_study: Callable[..., Study]
) -> None:
    import json

    choices = {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}
    search = {
        "parameters": [{"name": "model", "choices": choices}],
        "constraints": [{"metric": "autoencoder_accuracy", "at_least": 0.999}],
    }
    study = tiny_study(search=search)
    token, chunks = run(study)
    assert (token.state, token.violations) == ("complete", ())
    assert chunks.state == "complete"
    (violation,) = chunks.violations
    assert violation.startswith("autoencoder_accuracy >= 0.999 (found 0")
    written = json.loads((study_folder(study, store) / "trials.json").read_text())
    assert [trial["violations"] for trial in written] == [[], [violation]]
    assert [outcome.violations for outcome in run(study)] == [(), (violation,)]


def test_a_finished_study_adds_trials_only_when_asked(
    run: Callable[..., list[Any]], store: Store, tiny_study: Callable[..., Study], recorder: Any
) -> None:
    def study(num_trials: int) -> Study:
        search = {
            "sampler": "random",
            "num_trials": num_trials,
            "parameters": [{"name": "model.training.learning_rate", "low": 1e-4, "high": 1e-2}],
        }
        return tiny_study(search=search, model=tiny_study().model.model_dump() | {"kind": "token", "chunk_size": 1})

    first = run(study(2))
    same, more = recorder(), recorder()
    assert len(run(study(2), same)) == 2
    assert same.kinds_of(StageFinished) == []
    longer = run(study(3), more)
    assert [outcome.settings for outcome in longer[:2]] == [outcome.settings for outcome in first]
    assert sorted(more.kinds_of(StageFinished)) == ["evaluation", "language_model"]
    assert len(run(study(2))) == 3, "what was asked for once is part of the study"
