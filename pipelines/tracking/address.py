"""Where MLflow is."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.study.config import Tracking


def tracking_uri(tracking: Tracking, store_root: Path) -> str:
    """``tracking.uri``, else ``MLFLOW_TRACKING_URI``, else a sqlite file in the store.

    The result may hold credentials: print :func:`pipelines.common.redact.masked` of it.
    """
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root.resolve() / 'mlflow.db'}"
