"""Where the trials of a store's studies are, for reading: in a journal beside the study, or in PostgreSQL.

Nothing is ever written: journals are only read, and sessions of the database are read-only ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from pipelines.common.redact import redact
from pipelines.search.postgresql import PostgresqlError, connection_options, is_postgresql
from pipelines.search.trial_storage import VARIABLE
from pipelines.store.layout import JOURNAL, study_folders
from pipelines.store.study_record import load_study

IN_DATABASE = " (in the database)"
"""Behind the name of a study whose trials were kept in a journal first and in a database later: it is there twice."""


@dataclass(frozen=True)
class TrialSource:
    """A place that may hold the trials of one study."""

    name: str
    """Under which they are shown."""
    folder: Path
    """Folder of the study."""
    address: str | None
    """Address of the database, with credentials; None for a journal."""


def trial_sources(root: Path) -> Iterator[TrialSource]:
    """The places of all studies of the store at ``root``."""
    for folder in study_folders(root):
        has_journal = (folder / JOURNAL).is_file()
        if has_journal:
            yield TrialSource(folder.name, folder, None)
        address = database_of(folder)
        if address is not None:
            yield TrialSource(folder.name + IN_DATABASE if has_journal else folder.name, folder, address)


def open_journal(folder: Path) -> BaseStorage:
    """Optuna's storage of the study in ``folder``."""
    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def open_database(uri: str) -> RDBStorage | None:
    """Optuna's storage in a database, in sessions that can only read; None while no driver has made its tables.

    Args:
        uri: SQLAlchemy's address of it, with credentials, which appear nowhere else.

    Raises:
        PostgresqlError: the driver's package is not installed, or another version of Optuna made the tables.
    """
    import sqlalchemy

    url, given = connection_options(uri)
    # A reader may have a lost connection replaced unseen.
    options = {
        "connect_args": given["connect_args"],
        # Optuna takes a second connection while it compares its tables' version with its own.
        "pool_size": 1,
        "max_overflow": 1,
        "pool_pre_ping": True,
        "execution_options": {"postgresql_readonly": True},
    }
    engine = sqlalchemy.create_engine(url, **options)
    try:
        if not sqlalchemy.inspect(engine).has_table("version_info"):
            return None
    finally:
        engine.dispose()
    try:
        return RDBStorage(url, options, skip_table_creation=True)
    except RuntimeError as error:
        # It says what to do.
        raise PostgresqlError(f"Optuna's database {redact(uri)}: {error}") from None


def database_of(folder: Path) -> str | None:
    """The address of the database that may hold the trials of the study in ``folder``; None where it names none.

    What is written beside a study holds no credentials: an address with a password is told by the environment alone.
    """
    given = os.environ.get(VARIABLE) or None
    written = _written_address(folder)
    if written is not None and (given is None or redact(given) != written):
        return None if "***@" in written else written
    return given if given is not None and is_postgresql(given) else None


def hidden_databases(root: Path) -> list[str]:
    """Databases, masked, that hold trials of the store at ``root`` and whose credentials are not known here."""
    found = {_written_address(folder) for folder in study_folders(root) if database_of(folder) is None}
    return sorted(address for address in found if address is not None)


def _written_address(folder: Path) -> str | None:
    record = load_study(folder)
    found = None if record is None else record.optuna_storage
    return found if found is not None and is_postgresql(found) else None
