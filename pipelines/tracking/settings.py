"""The settings that set a study apart, on its run in MLflow: as parameters, which MLflow never changes, and as tags
where another run of the same study may have them otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.study.config import Study
from pipelines.tracking.metrics import overrides_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAMETERS_PER_BATCH = 100
LONGEST_SETTING = 6000
"""Characters of a setting."""
CHANGEABLE = ("search.num_trials", "search.allow_test_objective", "final", "tuned_by")
"""Settings that may change without making another study of it (:mod:`pipelines.study.identity`)."""


def write_settings(client: MlflowClient, run_id: str, study: Study) -> None:
    """Bring the settings on the run of ``study`` up to date."""
    from mlflow.entities import Param

    there = client.get_run(run_id).data
    settings = {name: value[:LONGEST_SETTING] for name, value in overrides_of(study).items()}
    tags = {name: value for name, value in settings.items() if is_changeable(name)}
    parameters = [Param(*one) for one in settings.items() if one[0] not in {*tags, *there.params}]
    for start in range(0, len(parameters), PARAMETERS_PER_BATCH):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_PER_BATCH])
    for name in [name for name in there.tags if is_changeable(name) and name not in tags]:
        client.delete_tag(run_id, name)
    for name, value in tags.items():
        client.set_tag(run_id, name, value)


def is_changeable(name: str) -> bool:
    """Whether the setting ``name``, by dotted path, may be another in a later run of the same study."""
    return any(name == one or name.startswith(f"{one}.") for one in CHANGEABLE)
