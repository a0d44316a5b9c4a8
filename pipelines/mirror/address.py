"""Where MLflow is, and how to speak of it without giving away a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

from calm_bench.study_config import Tracking

_USER_INFORMATION = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]+@")
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;\s]*(?:password|passwd|pwd|token|secret|key|signature)[^=&;\s]*=)[^&;\s'\"]+", re.IGNORECASE
)


def tracking_uri(tracking: Tracking, store_root: Path) -> str:
    """``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else a sqlite file in the store.

    The result may hold credentials: print :func:`masked` of it.
    """
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root.resolve() / 'mlflow.db'}"


def masked(text: str) -> str:
    """``text`` with ``***`` for the user and password, and for secret-looking query parameters, of every URI in it."""
    without_user = _USER_INFORMATION.sub(r"\g<scheme>***@", text)
    return _SECRET_PARAMETER.sub(r"\g<name>***", without_user)
