"""optuna-dashboard for all studies of a store at once.

Each study has a journal of its own, or its trials in a database, and the dashboard shows one storage: all studies are
copied into one in memory, again as they grow. What is done on the pages never reaches the store.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, get_storage

from calm_bench.errors import UsageError
from pipelines.common.redact import redact
from pipelines.search.postgresql import PostgresqlError, complaints
from pipelines.store.layout import JOURNAL
from pipelines.store.study_record import load_study
from pipelines.tracking.trial_sources import (
    IN_DATABASE,
    TrialSource,
    open_database,
    open_journal,
    trial_sources,
)

COPY_EVERY_S = 10.0
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MissingDashboard(UsageError, RuntimeError):
    """optuna-dashboard is not installed; says how to install it."""


class _Found(NamedTuple):
    """A search of a study: a study in Optuna's terms, by its name in the storage that holds it."""

    storage: BaseStorage
    name: str
    source: TrialSource


class StudyCopies:
    """All studies of the store at ``root``, copied into one storage of Optuna's; they are named by their folders, with
    the label of the search behind where a study consists of several.

    A study keeps its id from copy to copy: a page that is open stays the page of its study. While a database is away
    its studies stay as they were, as does one whose journal is damaged, which is said once on stderr.
    """

    def __init__(self, root: Path) -> None:
        self.storage: BaseStorage = InMemoryStorage()
        self._root = root
        self._names: list[str] = []
        """Names of the studies, by id."""
        self._opened: dict[str, BaseStorage] = {}
        """Journals by name of the study, databases by address."""
        self._databases: list[RDBStorage] = []
        self._seen: dict[str, object] = {}
        """What a study was copied from, so that what has not changed is not read again."""
        self._away: set[str] = set()

    def refresh(self) -> bool:
        """Copy what has grown; whether there was anything."""
        sources = {source.name: source for source in trial_sources(self._root)}
        stamps = {name: _stamp(source) for name, source in sources.items()}
        if not any(stamps[name] is None or stamps[name] != self._seen.get(name) for name in sources):
            return False
        found: dict[str, _Found] = {}
        for name, source in sources.items():
            if stamps[name] is not None and stamps[name] == self._seen.get(name):
                continue
            searches = self._searches(source)
            if searches or source.address is None:
                # A journal that is damaged is as damaged the next time, until it changes.
                self._seen[name] = stamps[name]
            found |= searches
        copies, names = InMemoryStorage(), [*self._names]
        for name in [*self._names, *(name for name in found if name not in self._names)]:
            if name not in found or not self._copy(name, found[name], copies):
                if name in self._names:
                    optuna.copy_study(from_study_name=name, from_storage=self.storage, to_storage=copies)
            elif name not in names:
                names.append(name)
        # In this order: another thread may ask for the id of a name.
        self.storage = copies
        self._names = names
        return True

    def study_id(self, folder: str) -> int | None:
        """Id of the study in ``folder``, by its trials in a database if it has any; None where it is not shown."""
        for name in (folder + IN_DATABASE, folder):
            if name in self._names:
                return self.storage.get_study_id_from_name(name)
        return None

    def close(self) -> None:
        """Let go of databases."""
        for database in self._databases:
            database.engine.dispose()

    def _searches(self, source: TrialSource) -> dict[str, _Found]:
        """The searches of a study, by the names that they have on the pages; none where it is not to be had."""
        try:
            storage = self._open(source)
            if storage is None:
                return {}
            with complaints(source.address or ""):
                names = optuna.get_all_study_names(storage)
        except Exception as error:  # nothing that one place holds may take the pages of the others
            self._say_away(source, error)
            return {}
        # A journal holds one study, a database those of many.
        own = source.folder.name if source.address is not None else names[0].partition(" / ")[0] if names else ""
        return {
            source.name + name.removeprefix(own): _Found(storage, name, source)
            for name in names
            if name == own or name.startswith(f"{own} / ")
        }

    def _open(self, source: TrialSource) -> BaseStorage | None:
        key = source.name if source.address is None else source.address
        if key not in self._opened:
            if source.address is None:
                self._opened[key] = open_journal(source.folder)
            else:
                with complaints(source.address):
                    database = open_database(source.address)
                if database is None:
                    return None
                self._databases.append(database)
                # Of trials that have ended it asks once only.
                self._opened[key] = get_storage(database)
        return self._opened[key]

    def _copy(self, name: str, found: _Found, copies: BaseStorage) -> bool:
        """Copy a search from its place, with the names of its objectives; whether it was there."""
        source = found.source
        try:
            with complaints(source.address or ""):
                optuna.copy_study(
                    from_study_name=found.name, from_storage=found.storage, to_storage=copies, to_study_name=name
                )
        except Exception as error:  # nothing that one place holds may take the pages of the others
            self._say_away(source, error)
            return False
        self._away.discard(source.address or source.name)
        metrics = _objectives(source.folder)
        copied = optuna.load_study(study_name=name, storage=copies)
        if len(metrics) == len(copied.directions):
            with warnings.catch_warnings():
                # It may change, says Optuna; then the pages call the values by their place.
                warnings.simplefilter("ignore", ExperimentalWarning)
                copied.set_metric_names(metrics)
        return True

    def _say_away(self, source: TrialSource, error: Exception) -> None:
        place = source.address or source.name
        if place not in self._away:
            is_told = isinstance(error, PostgresqlError)
            reason = error if is_told else f"trials of {source.name} cannot be read ({type(error).__name__}: {error})"
            shown = "what it said before is shown meanwhile"
            told = shown if source.name in self._names else "its studies are shown when it can be read"
            print(redact(f"{reason}; {told}"), file=sys.stderr, flush=True)
        self._away.add(place)
        if source.address is None:
            # It has read a part.
            self._opened.pop(source.name, None)


def _objectives(folder: Path) -> list[str]:
    """What the study's values are, which Optuna is not told; empty if it cannot be told."""
    record = load_study(folder)
    return [] if record is None else record.objectives


def _stamp(source: TrialSource) -> object:
    """What changes when the trials do; None where only asking tells."""
    if source.address is not None:
        return None
    with suppress(FileNotFoundError):
        status = (source.folder / JOURNAL).stat()
        return status.st_mtime_ns, status.st_size
    return None


class OptunaPages:
    """The pages for a store's studies on loopback, served by threads of this process until :meth:`stop`.

    So the address of a database, with its password, is on no command line.

    Args:
        root: of the store.
        copy_every_s: how often is looked whether studies have grown.

    Raises:
        MissingDashboard: optuna-dashboard is not installed.
        PostgresqlError: a package that a database of trials takes is not installed.
    """

    def __init__(self, root: Path, host: str, port: int, copy_every_s: float = COPY_EVERY_S) -> None:
        try:
            from optuna_dashboard import wsgi  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise MissingDashboard(
                "Optuna's pages need optuna-dashboard: pip install optuna-dashboard (in a checkout: "
                "pip install -e '.[ui]')"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._wsgi: Callable[[BaseStorage], Application] = wsgi
        self._copy_every_s = copy_every_s
        self._copies = StudyCopies(root)
        self._copies.refresh()
        self._application = self._wsgi(self._copies.storage)
        self._server = make_server(host, port, self._answer, server_class=_ThreadingServer, handler_class=_Quiet)
        self.address = f"http://{host}:{port}/dashboard/"
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=target, name="optuna-dashboard", daemon=True)
            for target in (self._server.serve_forever, self._keep_copying)
        ]
        for thread in self._threads:
            thread.start()

    def page(self, folder: str) -> str | None:
        """The page of the study in ``folder``; None where its trials are not to be seen from here."""
        study = self._copies.study_id(folder)
        return None if study is None else f"{self.address}studies/{study}"

    def stop(self) -> None:
        """End the pages."""
        self._stopped.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self._copies.close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            # It would change a copy, and be gone with it.
            start_response("405 Method Not Allowed", [("Content-Type", "text/plain")])
            return [b"the studies of a store are shown here, not changed"]
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def _keep_copying(self) -> None:
        while not self._stopped.wait(self._copy_every_s):
            try:
                if self._copies.refresh():
                    self._application = self._wsgi(self._copies.storage)
            except Exception as error:  # the folder of the store may be away
                reason = redact(f"{type(error).__name__}: {error}")
                print(f"Optuna's pages show studies as they were: {reason}", file=sys.stderr, flush=True)


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass
