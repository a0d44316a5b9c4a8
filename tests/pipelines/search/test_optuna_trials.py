"""What :mod:`pipelines.search.optuna_trials` takes from Optuna beyond what is meant for its users."""

from __future__ import annotations

import inspect
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from pipelines.search.optuna_trials import stored_trial, trial_of


def test_optuna_still_has_what_trials_are_taken_up_by() -> None:
    changed = (
        f"Optuna {optuna.__version__} has changed; pipelines/search/optuna_trials.py is the only place that knows: "
    )
    arguments = list(inspect.signature(optuna.trial.Trial.__init__).parameters)
    assert arguments == ["self", "study", "trial_id"], f"{changed}optuna.trial.Trial(study, trial_id) takes {arguments}"
    for name in ("get_study_id_from_name", "get_trial_id_from_study_id_trial_number", "get_trial"):
        for storage in (BaseStorage, JournalStorage, RDBStorage):
            assert callable(getattr(storage, name, None)), f"{changed}{storage.__name__}.{name} is gone"


@pytest.mark.parametrize("kind", ["memory", "journal", "database"])
def test_a_trial_that_another_process_asked_for_is_reported_to_and_told(kind: str, tmp_path: Path) -> None:
    memory = InMemoryStorage()

    def opened() -> BaseStorage:
        match kind:
            case "journal":
                return JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
            case "database":
                return get_storage(f"sqlite:///{tmp_path / 'trials.db'}")
        return memory

    optuna.create_study(storage=opened(), study_name="before", direction="maximize").ask()
    first = optuna.create_study(storage=opened(), study_name="study", direction="maximize")
    first.ask()
    first.ask()

    storage = opened()
    study = optuna.load_study(study_name="study", storage=storage)
    trial = trial_of(study, storage, 1)
    trial.report(0.5, 3)
    trial.set_user_attr("error", "none")
    study.tell(1, 2.0)
    found = stored_trial(study, storage, 1)
    assert (found.number, found.intermediate_values, found.user_attrs) == (1, {3: 0.5}, {"error": "none"})
    assert [one.state.name for one in study.get_trials()] == ["RUNNING", "COMPLETE"]
    with pytest.raises(KeyError):
        stored_trial(study, storage, 2)
