"""Addresses of MLflow: which one a study uses, what kind it is, and whether anybody answers there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from calm_bench.errors import RunError
from pipelines.study.config import Tracking

_PRESENCE_S = 3.0


class TrackingError(RunError, RuntimeError):
    """MLflow cannot be read or written; says where and what to do."""


def tracking_uri(tracking: Tracking, store_root: Path) -> str:
    """``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else a sqlite file in the store.

    The result may hold credentials: print :func:`pipelines.common.redact.redact` of it.
    """
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or own_database(store_root)


def own_database(store_root: Path) -> str:
    """Address of the sqlite file in the store.

    Where the path has signs that mean something in an address they are escaped, and the driver is named: MLflow would
    else make a folder of the escaped name beside the store.
    """
    path = str(store_root.resolve() / "mlflow.db")
    if unquote(path) == path and "?" not in path:
        return f"sqlite:///{path}"
    return f"sqlite+pysqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


def is_server(uri: str) -> bool:
    """Whether ``uri`` is that of a tracking server, and not of a database."""
    return urlsplit(uri).scheme in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """The file behind a ``sqlite:///`` address; None for other addresses and for a database in memory."""
    # As SQLAlchemy reads it: a hash is part of a path.
    scheme, _, rest = uri.partition(":///")
    path = unquote(rest.partition("?")[0])
    return Path(path) if scheme.startswith("sqlite") and path not in ("", ":memory:") else None


def check_presence(uri: str) -> None:
    """Ask a server for a connection and nothing else, so that one that is away is known in seconds.

    Raises:
        TrackingError: nobody answers at ``uri``.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(uri)
    behind_proxy = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
    if not is_server(uri) or behind_proxy:
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_PRESENCE_S).close()
    except (OSError, ValueError) as error:
        raise TrackingError(f"no server answers ({error})") from None
