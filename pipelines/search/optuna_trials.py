"""Optuna's trials taken up again by their number: the one place that goes beyond what Optuna offers its users.

A driver that was killed leaves trials running, and the next driver goes on with them; but Optuna gives a trial to write
to only to whom asks for it. So one is made here from ``Trial(study, trial_id)``, which Optuna documents and calls
itself, and the number is turned into an id by ``get_trial_id_from_study_id_trial_number`` of its storages, which are
documented for those who write storages. No attribute with a leading underscore is used.
``tests/pipelines/search/test_optuna_trials.py`` says what has changed when either does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


def trial_of(study: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> optuna.trial.Trial:
    """The trial ``number`` of ``study``, to be reported to, whoever asked for it.

    Args:
        storage: the one that ``study`` was made with.

    Raises:
        KeyError: ``study`` has no such trial.
    """
    import optuna

    return optuna.trial.Trial(study, _id_of(study, storage, number))


def stored_trial(study: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> optuna.trial.FrozenTrial:
    """The trial ``number`` as it is stored; the one alone, since a database is read anew for all that are open.

    Args:
        storage: the one that ``study`` was made with.

    Raises:
        KeyError: ``study`` has no such trial.
    """
    return storage.get_trial(_id_of(study, storage, number))


def _id_of(study: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> int:
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)
