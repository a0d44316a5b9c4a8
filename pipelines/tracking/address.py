"""Addresses of MLflow: which one a study uses, what kind it is, and whether anybody answers there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from calm_bench.errors import RunError
from pipelines.study.config import Tracking

_PRESENCE_S = 3.0


class TrackingError(RunError, RuntimeError):
    """MLflow cannot be read or written; says where and what to do."""


def tracking_uri(tracking: Tracking, store_root: Path) -> str:
    """``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else a sqlite file in the store.

    The result may hold credentials: print :func:`pipelines.common.redact.redact` of it.
    """
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether ``uri`` is that of a tracking server, and not of a database."""
    return urlsplit(uri).scheme in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """The file behind a ``sqlite:///`` address; None for other addresses and for a database in memory."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("sqlite") or parts.path in ("", "/", "/:memory:"):
        return None
    return Path(parts.path[1:])


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
