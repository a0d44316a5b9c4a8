"""What a search still costs of which trials have ended: the others, and what they do not share with these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.planning.calibration import Calibration
from pipelines.planning.estimate import estimate
from pipelines.planning.limit import Limit, OverBudget, check_limit
from pipelines.planning.machines import machine_named
from pipelines.planning.plan import Plan
from pipelines.planning.planner import plan_study
from pipelines.report.plan_table import summary
from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.trial_record import load_trials, save_trials
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome

Run = Callable[..., list[TrialOutcome]]


def _study(tiny_study: Callable[..., Study], num_trials: int, **sections: Any) -> Study:
    rates = {"name": "model.training.learning_rate", "low": 1e-3, "high": 1e-2, "log": True}
    search = {
        "sampler": "random",
        "num_trials": num_trials,
        "fixed": {"model.chunk_size": 1},
        "split": "validation",
        "objectives": [{"metric": "validation_loss"}],
        "parameters": [rates],
    }
    return tiny_study(search=search, **sections)


def _check(limit: Limit, plan: Plan, store: Store) -> None:
    machine = machine_named("local", plan.study.execution)
    check_limit(limit, plan, estimate(plan, store, machine, Calibration()))


def test_a_search_costs_what_its_other_trials_cost(run: Run, store: Store, tiny_study: Callable[..., Study]) -> None:
    outcomes = run(_study(tiny_study, 2))
    model = outcomes[0].results["language_model"]["training_flops"]
    encoder = outcomes[0].results["autoencoder"]["training_flops"]

    done = plan_study(_study(tiny_study, 2), store)
    assert done.sampled is not None
    assert (done.sampled.num_trials, done.sampled.num_to_run, done.sampled.flops_to_run) == (2, 0, 0.0)
    assert done.sampled.total == pytest.approx(encoder + 2 * model)
    assert "nothing of it is still to run" in summary(done)
    _check(Limit("flops", 1.0), done, store)
    machine = machine_named("local", done.study.execution)
    whole = estimate(plan_study(_study(tiny_study, 2), Store(store.root / "empty")), store, machine, Calibration())
    rest = estimate(done, store, machine, Calibration())
    assert rest.work_seconds == 0.0
    assert rest.seconds < whole.seconds

    longer = plan_study(_study(tiny_study, 5), store)
    assert longer.sampled is not None
    assert longer.sampled.num_to_run == 3
    assert longer.sampled.flops_to_run == pytest.approx(3 * model)
    assert "3 trials and about" in summary(longer)
    _check(Limit("flops", 3.01 * model), longer, store)
    with pytest.raises(OverBudget):
        _check(Limit("flops", 2.99 * model), longer, store)


def test_final_trials_count_until_they_have_ended(run: Run, store: Store, tiny_study: Callable[..., Study]) -> None:
    study = _study(tiny_study, 2, final={"seeds": [1, 2]})
    assert [one.role for one in run(study)] == ["search"] * 2 + ["selected"] * 2 + ["untuned"] * 2
    folder = study_folder(study, store)

    def to_run(wanted: Study) -> int:
        sampled = plan_study(wanted, store).sampled
        assert sampled is not None
        return sampled.num_to_run

    assert to_run(study) == 0
    assert to_run(_study(tiny_study, 3, final={"seeds": [1, 2]})) == 1 + 4, "a longer search may choose others"
    records = load_trials(folder)
    save_trials(folder, [*records[:5], records[5].model_copy(update={"state": "open"})])
    assert to_run(study) == 1
    # Where the best is what the search began from, half as many are trained, and a leaderboard says that these are all.
    save_trials(folder, records[:4])
    assert to_run(study) == 2
    (folder / LEADERBOARD_FILE).write_text("{}")
    assert to_run(study) == 0


def test_what_final_asks_for_after_a_run_counts(run: Run, store: Store, tiny_study: Callable[..., Study]) -> None:
    """It is no part of a study's identity, so the finished study's folder is that of the one with more."""

    def to_run(**final: Any) -> int:
        sampled = plan_study(_study(tiny_study, 2, **final), store).sampled
        assert sampled is not None
        return sampled.num_to_run

    for seeds, finished in (((), 0), ((1,), 2)):
        study = _study(tiny_study, 2, **({"final": {"seeds": seeds}} if seeds else {}))
        run(study)
        (study_folder(study, store) / LEADERBOARD_FILE).write_text("{}")
        assert to_run(final={"seeds": [1, 2]}) == 4 - finished
        assert to_run(final={"seeds": [1], "top": 2}) == 3 - finished
    assert to_run(final={"seeds": [1]}) == 0
