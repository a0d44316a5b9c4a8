"""optuna-dashboard for all studies of a store at once.

Each study has a journal of its own, and the dashboard shows one storage: here the journals are read as one, live, and
nothing is ever written to them.
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
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from calm_bench.overrides import ConfigurationError

JOURNAL = "optuna.journal"
_METRIC_NAMES = "study:metric_names"
"""Where Optuna keeps the names of objectives."""
_TRIALS = 1_000_000
"""Trial ids of one study; those of all studies must differ."""


class StoreStudies(BaseStorage):
    """The journals below ``root/studies`` as one storage for reading; studies are named by their folders."""

    def __init__(self, root: Path) -> None:
        self._root = root / "studies"
        self._lock = threading.RLock()
        self._names: list[str] = []
        self._journals: dict[str, JournalStorage] = {}
        self._metrics: dict[str, list[str]] = {}

    def get_all_studies(self) -> list[FrozenStudy]:
        with self._lock:
            for path in sorted(self._root.glob(f"*/{JOURNAL}")):
                if path.parent.name not in self._journals:
                    self._journals[path.parent.name] = JournalStorage(JournalFileBackend(str(path)))
                    self._names.append(path.parent.name)
            # A journal in which no study was made yet has nothing to show.
            return [study for name in self._names if (study := self._study(name)) is not None]

    def _study(self, name: str) -> FrozenStudy | None:
        found = self._journals[name].get_all_studies()
        if not found:
            return None
        study = found[0]
        names = self._objectives(name)
        return FrozenStudy(
            study_name=name,
            direction=None,
            directions=study.directions,
            user_attrs=study.user_attrs,
            system_attrs=({_METRIC_NAMES: names} if names else {}) | study.system_attrs,
            study_id=self._names.index(name) + 1,
        )

    def _objectives(self, name: str) -> list[str]:
        """What the study's values are, which is not in its journal; empty if it cannot be told."""
        if name not in self._metrics:
            try:
                found = yaml.safe_load((self._root / name / "study.yaml").read_text(encoding="utf-8"))
                self._metrics[name] = [str(objective["metric"]) for objective in found["search"]["objectives"]]
            except (OSError, yaml.YAMLError, KeyError, TypeError):
                return []
        return self._metrics[name]

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
            return _renamed(self._journals[self.get_study_name_from_id(study_id)].get_trial(inner), study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            journal = self._journals[self.get_study_name_from_id(study_id)]
            inner = journal.get_all_studies()[0]._study_id
            return [_renamed(trial, study_id) for trial in journal.get_all_trials(inner, deepcopy, states)]

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
    """The pages for a store's studies on loopback, served by a thread of this process."""

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
        """The page of the study in ``folder``; None where it keeps its trials elsewhere."""
        try:
            return f"{self.address}studies/{self.storage.get_study_id_from_name(folder)}"
        except KeyError:
            return None

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _renamed(trial: FrozenTrial, study_id: int) -> FrozenTrial:
    own = copy.copy(trial)
    own._trial_id = study_id * _TRIALS + trial._trial_id
    return own
