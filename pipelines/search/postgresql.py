"""PostgreSQL as the place where drivers on several hosts meet: one connection, and locks that die with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from calm_bench.errors import RunError
from pipelines.common.redact import redact

if TYPE_CHECKING:
    import sqlalchemy

DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""What SQLAlchemy reaches a database by, and what to install for it: also where calm-bench itself is a checkout."""

_KEEPALIVE_S = {"idle": 15, "interval": 5, "count": 3}
"""After about half a minute both ends know that the other's machine is gone; the system's own default is two hours."""


class PostgresqlError(RunError, RuntimeError):
    """A database cannot be used; the message says what to do and holds no credentials."""


class LostConnection(RunError, ConnectionError):
    """The connection that held a lock has ended."""


def is_postgresql(uri: str) -> bool:
    """Whether ``uri`` is SQLAlchemy's address of a PostgreSQL database, with or without the name of a driver."""
    scheme = uri.partition("://")[0]
    return scheme == "postgresql" or scheme in {f"postgresql+{driver}" for driver in DRIVERS}


@contextmanager
def one_connection(uri: str) -> Iterator[sqlalchemy.Engine]:
    """An engine of :func:`connection_options`, disposed of at the end of the block."""
    import sqlalchemy

    url, options = connection_options(uri)
    engine = sqlalchemy.create_engine(url, **options)
    notice_death(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def connection_options(uri: str) -> tuple[str, dict[str, Any]]:
    """Address and keyword arguments for ``sqlalchemy.create_engine``: exactly one connection, to be used in one thread.

    Locks and writes then share their fate: who loses the one cannot go on with the other.

    Raises:
        PostgresqlError: ``uri`` is no address of a PostgreSQL database, or the driver is not installed.
    """
    import importlib.util

    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import StaticPool

    if not is_postgresql(uri):
        # Not shown, not even masked: what is no address has no known place for its password.
        raise PostgresqlError("not an address of the form postgresql://USER:PASSWORD@HOST/DATABASE")
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        raise PostgresqlError("not an address of the form postgresql://USER:PASSWORD@HOST/DATABASE") from None
    if url.drivername == "postgresql":
        # The default driver depends on SQLAlchemy's version.
        url = url.set(drivername="postgresql+psycopg")
    driver = url.drivername.partition("+")[2]
    if importlib.util.find_spec(driver) is None:
        raise PostgresqlError(f"{redact(uri)} needs the package {driver}: pip install '{DRIVERS[driver]}'")
    wanted = {"connect_timeout": 10, **{f"keepalives_{name}": value for name, value in _KEEPALIVE_S.items()}}
    arguments = {name: value for name, value in wanted.items() if name not in url.query}
    # No check before each use: it would replace a lost connection unseen, and with it the locks it held.
    options = {"poolclass": StaticPool, "pool_pre_ping": False, "connect_args": arguments}
    return url.render_as_string(hide_password=False), options


def notice_death(engine: sqlalchemy.Engine) -> None:
    """Have the server, too, notice soon that this machine is gone, and free its locks. Ends the present connection."""
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "connect")
    def keep_alive(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            for name, value in _KEEPALIVE_S.items():
                cursor.execute(f"SET tcp_keepalives_{name} = {value}")
        connection.commit()

    engine.dispose()


@contextmanager
def advisory_lock(engine: sqlalchemy.Engine, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of the database that ``engine`` is connected to; it ends with the connection.

    Waits for as long as another holds it. The engine must be one of :func:`connection_options`. Until the lock is
    given back it makes no new connection: who repeats a failed statement, as Optuna does, would write without the lock.

    Raises:
        LostConnection: instead of a new connection.
    """
    import sqlalchemy

    def refuse(*_: object) -> None:
        raise LostConnection("the connection, and with it the lock, was lost")

    key = int.from_bytes(hashlib.sha256(f"calm-bench {name}".encode()).digest()[:8], "big", signed=True)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        connection.commit()
    sqlalchemy.event.listen(engine, "do_connect", refuse)
    try:
        yield
    except BaseException:
        # On a broken connection there is nothing left to unlock; a sound one frees the lock by its end.
        engine.dispose()
        raise
    finally:
        sqlalchemy.event.remove(engine, "do_connect", refuse)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        connection.commit()


@contextmanager
def complaints(address: str) -> Iterator[None]:
    """Tell what Optuna's database at ``address`` says without the statements, and without credentials.

    Raises:
        PostgresqlError: in place of an error of Optuna's or SQLAlchemy's.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, LostConnection) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        said = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise PostgresqlError(f"Optuna's database {redact(address)}: {redact(said)}") from None


def is_lost_connection(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, says that the server went away or cannot be reached."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OperationalError | InterfaceError | LostConnection):
            return True
        if isinstance(link, DBAPIError) and link.connection_invalidated:
            return True
        link = link.__cause__ or link.__context__
    return False
