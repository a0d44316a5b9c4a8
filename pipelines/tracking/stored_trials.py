"""Trials of a store's studies for reading, wherever Optuna keeps them: in a journal beside the study, or in PostgreSQL.

Nothing is ever written: journals are only read, and sessions of the database are read-only ones.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from pipelines.common.redact import masked
from pipelines.search.postgresql import PostgresqlError, complaints, connection_options, is_postgresql
from pipelines.search.trial_storage import VARIABLE

JOURNAL = "optuna.journal"
FRESH_S = 1.0
"""For how long a list of a database's studies answers: one page asks for it several times."""


class StoredTrials(Protocol):
    """The trials of one study."""

    def study(self) -> FrozenStudy | None:
        """The study; None where none was made yet."""

    def trials(self, deepcopy: bool, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """As ``BaseStorage.get_all_trials``."""

    def trial(self, trial_id: int) -> FrozenTrial:
        """As ``BaseStorage.get_trial``."""


class JournalTrials:
    """Of the journal at ``path``, read live."""

    def __init__(self, path: Path) -> None:
        self._storage = JournalStorage(JournalFileBackend(str(path)))

    def study(self) -> FrozenStudy | None:
        found = self._storage.get_all_studies()
        return found[0] if found else None

    def trials(self, deepcopy: bool, states: Container[TrialState] | None) -> list[FrozenTrial]:
        study = self.study()
        return [] if study is None else self._storage.get_all_trials(study._study_id, deepcopy, states)

    def trial(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)


class TrialDatabase:
    """A database in which drivers keep trials, of this store and perhaps of others. Use under a lock.

    While it is away this answers as it did last, and says so on stderr: who looks at a page of a running study must not
    lose it for a minute's maintenance.

    Args:
        uri: SQLAlchemy's address of it, with credentials, which appear nowhere else.

    Raises:
        PostgresqlError: the driver's package is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.address = masked(uri)
        self._url, options = connection_options(uri)
        # Who only reads may have a lost connection replaced unseen.
        self._options = {
            "connect_args": options["connect_args"],
            # Optuna takes a second connection while it compares its tables' version with its own.
            "pool_size": 1,
            "max_overflow": 1,
            "pool_pre_ping": True,
            "execution_options": {"postgresql_readonly": True},
        }
        self._storage: BaseStorage | None = None
        self._engine_owner: RDBStorage | None = None
        self._is_away = False
        self._fresh_until = 0.0
        self._studies: dict[str, FrozenStudy] = {}
        self._trials: dict[str, list[FrozenTrial]] = {}

    def study(self, name: str) -> FrozenStudy | None:
        """The study ``name``, as it was a moment ago; None where there is none."""
        if time.monotonic() >= self._fresh_until:
            with self._or_as_before():
                storage = self._opened()
                self._studies = {study.study_name: study for study in storage.get_all_studies()} if storage else {}
            self._fresh_until = time.monotonic() + FRESH_S
        return self._studies.get(name)

    def trials(self, name: str) -> list[FrozenTrial]:
        """Of the study ``name``, by number; not to be changed."""
        study = self.study(name)
        with self._or_as_before():
            storage = self._opened()
            if storage is not None and study is not None:
                self._trials[name] = storage.get_all_trials(study._study_id, deepcopy=False)
        return self._trials.get(name, [])

    def close(self) -> None:
        if self._engine_owner is not None:
            self._engine_owner.engine.dispose()

    def _opened(self) -> BaseStorage | None:
        """Optuna's storage in it; None while no driver has made its tables."""
        if self._storage is None:
            import sqlalchemy

            engine = sqlalchemy.create_engine(self._url, **self._options)
            try:
                if not sqlalchemy.inspect(engine).has_table("version_info"):
                    return None
            finally:
                engine.dispose()
            try:
                self._engine_owner = RDBStorage(self._url, self._options, skip_table_creation=True)
            except RuntimeError as error:
                # Another version of Optuna has made the tables; it says what to do.
                raise PostgresqlError(f"Optuna's database {self.address}: {error}") from None
            # Of trials that have ended it asks once only.
            self._storage = get_storage(self._engine_owner)
        return self._storage

    @contextmanager
    def _or_as_before(self) -> Iterator[None]:
        """Leave things as they are where the database is away, and say so once each time."""
        try:
            with complaints(self.address):
                yield
        except PostgresqlError as error:
            if not self._is_away:
                known = "what it said before is" if self._studies else "its studies are"
                when = "meanwhile" if self._studies else "when it answers"
                print(f"{error}; {known} shown {when}", file=sys.stderr, flush=True)
            self._is_away = True
        else:
            self._is_away = False


class DatabaseTrials:
    """Of one study in a database."""

    def __init__(self, database: TrialDatabase, name: str) -> None:
        self._database = database
        self._name = name

    def study(self) -> FrozenStudy | None:
        return self._database.study(self._name)

    def trials(self, deepcopy: bool, states: Container[TrialState] | None) -> list[FrozenTrial]:
        found = [trial for trial in self._database.trials(self._name) if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def trial(self, trial_id: int) -> FrozenTrial:
        for trial in self._database.trials(self._name):
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(f"no trial {trial_id}")


def database_of(folder: Path) -> str | None:
    """The address of the database that may hold the trials of the study in ``folder``; None where it names none.

    What is written beside a study holds no credentials: an address with a password is told by the environment alone.
    """
    given = os.environ.get(VARIABLE) or None
    written = _written_address(folder)
    if written is not None and (given is None or masked(given) != written):
        return None if "***@" in written else written
    return given if given is not None and is_postgresql(given) else None


def hidden_database_of(folder: Path) -> str | None:
    """The masked address of the database of the study in ``folder`` whose credentials are not known here."""
    written = _written_address(folder)
    return written if written is not None and database_of(folder) is None else None


def _written_address(folder: Path) -> str | None:
    try:
        found = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))["execution"]["optuna_storage"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and is_postgresql(found) else None
