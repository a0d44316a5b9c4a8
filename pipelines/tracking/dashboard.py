"""optuna-dashboard for all studies of a store at once.

Each study has a journal of its own, or its trials in a database, and the dashboard shows one storage: here all of them
are read as one, live, and nothing is ever written to them.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Container, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import yaml
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from calm_bench.overrides import ConfigurationError
from pipelines.tracking.stored_trials import (
    JOURNAL,
    DatabaseTrials,
    JournalTrials,
    StoredTrials,
    TrialDatabase,
    database_of,
    hidden_database_of,
)

_METRIC_NAMES = "study:metric_names"
"""Where Optuna keeps the names of objectives."""
_IN_DATABASE = " (in the database)"
_TRIALS = 1_000_000_000
"""Trial ids of one place; those of all studies must differ, and a database counts its trials through."""


class StoreStudies(BaseStorage):
    """All studies below ``root/studies`` as one storage for reading; they are named by their folders.

    A study whose trials were kept in a journal first and in a database later is there twice.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "studies"
        self._lock = threading.RLock()
        self._places: dict[str, StoredTrials] = {}
        """By name; a study's id is its place in the order, from 1."""
        self._folders: dict[str, Path] = {}
        self._databases: dict[str, TrialDatabase] = {}
        self._metrics: dict[Path, list[str]] = {}

    def hidden(self) -> list[str]:
        """Databases, masked, that hold trials and whose credentials are not known here."""
        found = {hidden_database_of(folder) for folder in self._study_folders()}
        return sorted(address for address in found if address is not None)

    def names_of(self, folder: str) -> list[str]:
        """The names under which the study in ``folder`` is shown, the one in a database first."""
        shown = {study.study_name for study in self.get_all_studies()}
        return [name for name in (folder + _IN_DATABASE, folder) if name in shown]

    def close(self) -> None:
        with self._lock:
            for database in self._databases.values():
                database.close()

    def get_all_studies(self) -> list[FrozenStudy]:
        with self._lock:
            self._find()
            # A place in which no study was made yet has nothing to show.
            return [study for name in self._places if (study := self._study(name)) is not None]

    def _study_folders(self) -> list[Path]:
        return sorted(path for path in self._root.glob("*") if path.is_dir())

    def _find(self) -> None:
        """Take note of studies that have begun."""
        for folder in self._study_folders():
            if folder.name not in self._places and (folder / JOURNAL).is_file():
                self._add(folder.name, folder, JournalTrials(folder / JOURNAL))
            uri = database_of(folder)
            if uri is None or folder.name + _IN_DATABASE in self._places:
                continue
            if isinstance(self._places.get(folder.name), DatabaseTrials):
                continue
            if uri not in self._databases:
                self._databases[uri] = TrialDatabase(uri)
            if self._databases[uri].study(folder.name) is not None:
                name = folder.name + _IN_DATABASE if folder.name in self._places else folder.name
                self._add(name, folder, DatabaseTrials(self._databases[uri], folder.name))

    def _add(self, name: str, folder: Path, place: StoredTrials) -> None:
        self._places[name], self._folders[name] = place, folder

    def _study(self, name: str) -> FrozenStudy | None:
        study = self._places[name].study()
        if study is None:
            return None
        names = self._objectives(self._folders[name])
        return FrozenStudy(
            study_name=name,
            direction=None,
            directions=study.directions,
            user_attrs=study.user_attrs,
            system_attrs=({_METRIC_NAMES: names} if names else {}) | study.system_attrs,
            study_id=[*self._places].index(name) + 1,
        )

    def _objectives(self, folder: Path) -> list[str]:
        """What the study's values are, which Optuna is not told; empty if it cannot be told."""
        if folder not in self._metrics:
            try:
                found = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
                self._metrics[folder] = [str(objective["metric"]) for objective in found["search"]["objectives"]]
            except (OSError, yaml.YAMLError, KeyError, TypeError):
                return []
        return self._metrics[folder]

    def _frozen(self, study_id: int) -> FrozenStudy:
        for study in self.get_all_studies():
            if study._study_id == study_id:
                return study
        raise KeyError(f"no study {study_id}")

    def get_study_id_from_name(self, study_name: str) -> int:
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return study._study_id
        raise KeyError(f"no study {study_name!r}")

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._frozen(study_id).study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._frozen(study_id).directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._frozen(study_id).user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._frozen(study_id).system_attrs

    def get_trial(self, trial_id: int) -> FrozenTrial:
        study_id, inner = divmod(trial_id, _TRIALS)
        with self._lock:
            return _renamed(self._places[self.get_study_name_from_id(study_id)].trial(inner), study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            place = self._places[self.get_study_name_from_id(study_id)]
            return [_renamed(trial, study_id) for trial in place.trials(deepcopy, states)]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._refuse()

    def delete_study(self, study_id: int) -> None:
        self._refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._refuse()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise PermissionError("the studies of a store are shown here, not changed")


class DashboardServer:
    """The pages for a store's studies on loopback, served by a thread of this process.

    So the address of a database, with its password, is on no command line.

    Raises:
        ConfigurationError: optuna-dashboard is not installed.
        PostgresqlError: a package that a database of trials takes is not installed.
    """

    def __init__(self, root: Path, host: str, port: int) -> None:
        try:
            from optuna_dashboard import wsgi  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise ConfigurationError(
                "optuna-dashboard is not installed: pip install 'calm-bench[ui]', or leave it out with --no-dashboard"
            ) from None
        self.storage = StoreStudies(root)
        self._server = make_server(
            host, port, wsgi(self.storage), server_class=_ThreadingServer, handler_class=_QuietHandler
        )
        self.address = f"http://{host}:{port}/dashboard/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="optuna-dashboard", daemon=True)
        self._thread.start()

    def page(self, folder: str) -> str | None:
        """The page of the study in ``folder``; None where its trials are not to be seen from here."""
        for name in self.storage.names_of(folder):
            return f"{self.address}studies/{self.storage.get_study_id_from_name(name)}"
        return None

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.storage.close()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _renamed(trial: FrozenTrial, study_id: int) -> FrozenTrial:
    own = copy.copy(trial)
    own._trial_id = study_id * _TRIALS + trial._trial_id
    return own
