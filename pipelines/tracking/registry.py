"""A study in MLflow's model registry: a registered model, a version a scored trial, and a name for the best one.

The weights stay in the study's store unless ``tracking.log_models`` copies them. A version points at the part of its
run that says where they are (:mod:`pipelines.tracking.pyfunc_files`), so MLflow lists and loads it as any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from pipelines.common.numbers import printable
from pipelines.common.redact import redact
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.study.config import Study
from pipelines.tracking import tags as tag_names
from pipelines.tracking.description import study_head, trial_note
from pipelines.tracking.pyfunc_files import FOLDER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

BEST = "best"
"""Alias of the version that leads the leaderboard; ``best-<protocol>`` where a study was scored under several."""

_VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model by which its page links its versions; MLflow sets it for models that it keeps itself."""
_LONGEST_NAME = 250
_LONGEST_DESCRIPTION = 5000
"""Characters, as MLflow's tables have it."""
_REFUSALS = frozenset(
    {"BAD_REQUEST", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "INVALID_PARAMETER_VALUE", "NOT_IMPLEMENTED"}
    | {"PERMISSION_DENIED", "UNAUTHENTICATED"}
)
"""Answers that asking again does not change."""


class Registry:
    """The registered model of one study. Looks first at what is there, so that writing again changes nothing.

    Where MLflow has no registry, or lets nobody write it, ``refusal`` says so, and nothing more is tried: the runs are
    whole without it.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, study: Study, identity: str) -> None:
        self.refusal: str | None = None
        self._client = client
        self._experiment_id = experiment_id
        self._study = study
        self._identity = identity
        self._name: str | None = None
        self._versions: dict[str, ModelVersion] = {}
        """By run."""

    def push(self, run_id: str, model_id: str, entry: Entry) -> None:
        """Register the model of a scored trial, or bring its version up to date.

        Raises:
            MlflowException: what asking again may change.
        """
        self._unless_refused(lambda: self._push(run_id, model_id, entry))

    def quarantine(self, run_id: str) -> None:
        """Say of a version that it is no row any more."""
        self._unless_refused(lambda: self._move_aside(run_id))

    def name_best(self, leaderboard: Leaderboard, runs: Mapping[int, str]) -> None:
        """Give the names of the best to the versions that lead ``leaderboard``.

        Args:
            runs: by trial.
        """
        self._unless_refused(lambda: self._name_best(leaderboard, runs))

    def _unless_refused(self, step: Callable[[], None]) -> None:
        from mlflow.exceptions import MlflowException

        if self.refusal is not None or not self._study.tracking.register_models:
            return
        try:
            step()
        except Exception as error:
            # Nobody knows how much of the request has arrived: the next one looks first.
            self._name = None
            if not isinstance(error, MlflowException) or error.error_code not in _REFUSALS:
                raise
            self.refusal = redact(str(error))[:300]

    def _push(self, run_id: str, model_id: str, entry: Entry) -> None:
        name = self._registered()
        # The list of versions shows the beginning as it is written, without making letters bold.
        tags, description = _tags(entry), trial_note(entry).replace("**", "", 2)[:_LONGEST_DESCRIPTION]
        known = self._versions.get(run_id)
        if known is None:
            # Not by the logged model's address: without a server MLflow looks for that in another database.
            source = f"runs:/{run_id}/{FOLDER}"
            known = self._client.create_model_version(
                name, source, run_id, tags=tags, description=description, await_creation_for=0
            )
            self._versions[run_id] = known
            linked = []
        else:
            self._update(known, tags, description)
            # People may have registered the model under names of their own.
            linked = json.loads(self._client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
        version = {"name": name, "version": int(known.version)}
        if version not in linked:
            self._client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps([*linked, version])})

    def _update(self, known: ModelVersion, tags: Mapping[str, str], description: str) -> None:
        """Make ``tags`` and ``description`` what the version has."""
        changed = {key: value for key, value in tags.items() if known.tags.get(key) != value}
        for key, value in changed.items():
            self._client.set_model_version_tag(known.name, known.version, key, value)
        was_former = tag_names.ROLE in known.tags and tag_names.ROLE not in tags
        if was_former:
            self._client.delete_model_version_tag(known.name, known.version, tag_names.ROLE)
        if known.description != description:
            self._client.update_model_version(known.name, known.version, description)
        if changed or was_former or known.description != description:
            self._versions[str(known.run_id)] = self._client.get_model_version(known.name, known.version)

    def _move_aside(self, run_id: str) -> None:
        self._registered()
        known = self._versions.get(run_id)
        if known is not None:
            self._update(known, {**known.tags, tag_names.ROLE: tag_names.FORMER}, known.description or "")

    def _name_best(self, leaderboard: Leaderboard, runs: Mapping[int, str]) -> None:
        name = self._registered()
        wanted = {}
        for group in leaderboard.groups:
            version = self._versions.get(runs.get(group.entries[0].trial, ""))
            if version is not None:
                alias = BEST if len(leaderboard.groups) == 1 else f"{BEST}-{group.protocol_hash[:6]}"
                wanted[alias] = str(version.version)
        held = {alias: str(version) for alias, version in self._client.get_registered_model(name).aliases.items()}
        for alias, number in wanted.items():
            if held.get(alias) != number:
                self._client.set_registered_model_alias(name, alias, number)
        for alias in held:
            # People's own aliases are theirs.
            if alias not in wanted and alias.partition("-")[0] == BEST:
                self._client.delete_registered_model_alias(name, alias)

    def _registered(self) -> str:
        """The name of the registered model, which is there afterwards, with its versions looked up."""
        from mlflow.exceptions import MlflowException

        if self._name is not None:
            return self._name
        experiment = self._client.get_experiment(self._experiment_id).name
        name = registered_name(experiment, self._study.name, self._identity)
        tags = {tag_names.STUDY_NAME: self._study.name, tag_names.STUDY_IDENTITY: self._identity}
        versions = {str(version.run_id): version for version in _versions(self._client, name)}
        if not versions:
            try:
                self._client.create_registered_model(name, tags, _description(self._study))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        self._versions, self._name = versions, name
        return name


def registered_name(experiment: str, study: str, identity: str) -> str:
    """As the study's folder is called, behind the experiment's name: one MLflow may hold a study in several.

    MLflow takes neither ``/`` nor ``:`` in it, and looks for no name with a quote.
    """
    behind = f".{study}-{identity}"
    prefix = re.sub(r"[^\w. -]", "_", experiment)
    return prefix[: _LONGEST_NAME - len(behind)] + behind


def without_registry(refusal: str) -> str:
    """What to say of an MLflow that registers no models."""
    return (
        f"has the runs of this study but registers none of its models: {refusal}. "
        "tracking.register_models=false does not ask for it"
    )


def _versions(client: MlflowClient, name: str) -> Iterable[ModelVersion]:
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _description(study: Study) -> str:
    told = (
        f"Models of the study `{study.name}`, a version a trial, with its score in the tags: `brierlm`, higher is "
        f"better, ± `brierlm_error`. `@{BEST}` leads the leaderboard. `mlflow.pyfunc.load_model` gives one that "
        "writes texts; the description of a version says how else to use it."
    )
    return f"{study_head(study)}\n{told}".lstrip()[:_LONGEST_DESCRIPTION]


def _tags(entry: Entry) -> dict[str, str]:
    return {
        "model": printable(entry.label)[:250],
        "brierlm": f"{entry.brierlm:.4f}",
        "brierlm_error": f"{entry.brierlm_se:.4f}",
        "k": str(entry.chunk_size),
        "head": entry.head or entry.kind,
        "seed": str(entry.seed),
        "protocol": entry.protocol_hash,
    }
