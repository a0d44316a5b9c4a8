"""Where Optuna keeps the trials of a study: a journal in the store, or PostgreSQL for drivers that share no folder.

Either brings the one thing that Optuna's storages lack for several drivers: a lock under which trials are asked, so
that no two ask the same one and what is asked never depends on who came first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from calm_bench.atomic import write_bytes
from calm_bench.fingerprint import identity
from calm_bench.problems import ConfigurationError
from pipelines.common.redact import redact
from pipelines.search.postgresql import (
    PostgresqlError,
    advisory_lock,
    complaints,
    connection_options,
    is_lost_connection,
    is_postgresql,
    notice_death,
    one_connection,
)
from pipelines.store.file_lock import locked
from pipelines.store.layout import JOURNAL
from pipelines.store.study_record import load_study
from pipelines.study.config import Execution

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

T = TypeVar("T")

VARIABLE = "CALM_BENCH_OPTUNA_STORAGE"

PATIENCE_S = 900.0
"""How long a study waits for a database that went away; its stages run on meanwhile."""

PAUSE_S = 2.0


class TrialStorage(Protocol):
    """The trials of one study, as one driver sees them. Used from one thread."""

    @property
    def study_name(self) -> str:
        """The study's name in it."""

    def open(self) -> optuna.storages.BaseStorage:
        """What Optuna reads and writes, made if missing; the same at every call. To be called first."""

    def exclusively(self, step: Callable[[], T]) -> T:
        """Do ``step`` while no other driver of the study does; it may be done in part, and then from its start."""

    def place(self) -> str | None:
        """The database that it is, in hex digits that no other has, by whatever address it is reached; None of a
        journal."""

    def close(self) -> None:
        """Let go of it."""


def trial_storage(execution: Execution, folder: Path, name: str) -> TrialStorage:
    """The database that ``execution.optuna_storage`` or ``CALM_BENCH_OPTUNA_STORAGE`` names, else a journal.

    Args:
        folder: the study's in the store; its name tells the study from all others in a database.
        name: of the study in its journal.

    Raises:
        ConfigurationError: the address is not one of PostgreSQL.
        PostgresqlError: its driver is not installed.
    """
    uri = execution.optuna_storage or os.environ.get(VARIABLE)
    if uri is None:
        return Journal(folder / JOURNAL, name)
    if not is_postgresql(uri):
        source = "execution.optuna_storage" if execution.optuna_storage else VARIABLE
        raise ConfigurationError(
            f"{source}: drivers can share PostgreSQL only, by an address such as "
            "postgresql://USER:PASSWORD@HOST/DATABASE; unset, trials are kept in a journal in the store"
        )
    return Database(uri, folder.name)


def unused_trials(storage: TrialStorage, folder: Path) -> str | None:
    """What to say where trials of the study in ``folder`` lie elsewhere than in ``storage`` too; None where they do
    not. To be asked before the study's configuration is written anew."""
    again = "they are asked again, and what they trained and scored is taken from the store"
    if isinstance(storage, Database):
        journal = folder / JOURNAL
        if not journal.exists():
            return None
        return f"{journal} is not used: this study keeps its trials in {storage.address} now; {again}"
    record = load_study(folder)
    if record is None or record.optuna_storage is None:
        return None
    return (
        f"{record.optuna_storage} is not used: this study keeps its trials in a journal where neither "
        f"execution.optuna_storage nor {VARIABLE} names that database; {again}"
    )


class Journal:
    """A file of Optuna's; its lock is the kernel's."""

    def __init__(self, path: Path, study_name: str) -> None:
        self.study_name = study_name
        self._path = path
        self._guard = path.with_name(f".{path.name}.guard")
        self._opened: optuna.storages.BaseStorage | None = None

    def open(self) -> optuna.storages.BaseStorage:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if self._opened is None:
            with locked(self._guard):
                _recover(self._path)
                self._opened = JournalStorage(JournalFileBackend(str(self._path)))
        return self._opened

    def exclusively(self, step: Callable[[], T]) -> T:
        with locked(self._guard):
            return step()

    def place(self) -> str | None:
        return None

    def close(self) -> None:
        pass


class Database:
    """A PostgreSQL database, which may hold many studies and nothing else; its lock is an advisory one.

    Lock and writes share one connection, so that a driver which lost the one can do no more of the other.

    Args:
        uri: SQLAlchemy's address of it, with credentials.
        patience_s: how long to wait for it where it was there before. One that is not there from the start, or refuses
            its user, is an error at once.

    Raises:
        PostgresqlError: ``uri`` cannot be used; as do the methods where the database is not to be had.
    """

    def __init__(self, uri: str, study_name: str, patience_s: float = PATIENCE_S) -> None:
        self.study_name = study_name
        self._uri = uri
        self.address = redact(uri)
        """Of the database, without its password."""
        self._patience_s = patience_s
        self._url, self._options = connection_options(uri)
        self._engine: sqlalchemy.Engine | None = None
        self._opened: optuna.storages.BaseStorage | None = None

    def open(self) -> optuna.storages.BaseStorage:
        from optuna.storages import RDBStorage

        if self._opened is not None:
            return self._opened
        with complaints(self.address), one_connection(self._uri) as engine, advisory_lock(engine, "optuna tables"):
            self._refuse_tables_of_others(engine)
            storage = RDBStorage(self._url, self._options)
        notice_death(storage.engine)
        self._engine, self._opened = storage.engine, storage
        return storage

    def place(self) -> str | None:
        import sqlalchemy

        with complaints(self.address), one_connection(self._uri) as engine, engine.connect() as connection:
            try:
                # Of the servers, each of which has made itself a number.
                known = connection.execute(
                    sqlalchemy.text(
                        "SELECT system_identifier::text, oid::text FROM pg_control_system(), pg_database "
                        "WHERE datname = current_database()"
                    )
                ).one()
            except sqlalchemy.exc.ProgrammingError:
                # Hosted servers may keep it to themselves.
                url = sqlalchemy.engine.make_url(self._uri)
                return identity([url.host, url.port, url.database])
        return identity(list(known))

    def try_out(self) -> None:
        """Connect, and leave everything as it is."""
        with complaints(self.address), one_connection(self._uri) as engine, engine.connect():
            pass

    def exclusively(self, step: Callable[[], T]) -> T:
        assert self._engine is not None, "to be opened first"
        deadline = time.monotonic() + self._patience_s
        said = False
        while True:
            with complaints(self.address):
                try:
                    with advisory_lock(self._engine, self.study_name):
                        return step()
                except Exception as error:
                    if not is_lost_connection(error) or time.monotonic() > deadline:
                        raise
            if not said:
                said = True
                print(f"{self.address} is away; the study waits for it", file=sys.stderr, flush=True)
            time.sleep(PAUSE_S)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def _refuse_tables_of_others(self, engine: sqlalchemy.Engine) -> None:
        import sqlalchemy

        # Optuna and MLflow both note the version of their tables in one of this name.
        found = set(sqlalchemy.inspect(engine).get_table_names())
        if "alembic_version" in found and "version_info" not in found:
            raise PostgresqlError(
                f"{self.address} holds tables of another program, such as MLflow: give Optuna a database of its own"
            )


def _recover(path: Path) -> None:
    """Take a journal back to its last whole state, so that Optuna can read it.

    A last line without its end is what a killed driver left, and is cut off. Any other line that is no entry is damage
    of the disk or of hands: what follows it may rest on it, so the entries before it are kept, and the whole file
    beside them. Trials that are lost with it are asked again; what they had trained and scored is in the store.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    lines = content.split(b"\n")
    whole = lines[:-1]
    good = next((number for number, line in enumerate(whole) if not _is_entry(line)), len(whole))
    if good == len(whole):
        if lines[-1]:
            with path.open("rb+") as file:
                file.truncate(len(content) - len(lines[-1]))
        return
    aside = next(name for number in count(1) if not (name := path.with_name(f"{path.name}.damaged-{number}")).exists())
    write_bytes(aside, content)
    write_bytes(path, b"".join(line + b"\n" for line in whole[:good]))
    print(
        f"{path} is damaged in line {good + 1} of {len(whole)}: the study goes on from the {good} entries before it, "
        f"trials recorded after them are asked again, and their results are taken from the store; the damaged file is "
        f"kept as {aside.name}",
        file=sys.stderr,
        flush=True,
    )


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
