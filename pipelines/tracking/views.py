"""The views that MLflow opens with: trials as a leaderboard, and charts of quality against compute.

Trials of a search whose best were trained again are in neither: their scores are of validation text, and chose.

MLflow keeps a saved view in a tag of the experiment: its name and, as its pages serialize it, what they show. A view is
opened by its key in the address, and listed under "Saved views".
"""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.tracking.tags import ROLE

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLE = "calm-bench-leaderboard"
CHARTS = "calm-bench-charts"
_TAG = "mlflow.sharedViewState."
_MADE = 1_760_000_000_000
"""Milliseconds since 1970, by which MLflow orders its list of views; the same for everybody, so that a tag that is
written again is the same tag."""

COLUMNS = (
    "metrics.`brierlm`",
    "metrics.`error/brierlm`",
    "params.`model.chunk_size`",
    "params.`model.head.kind`",
    "metrics.`total_training_flops`",
    "metrics.`inference_flops_per_token`",
)
"""Columns of the table, as MLflow names them; beside the run's name, its state and when it began."""


def save_views(client: MlflowClient, experiment_id: str) -> None:
    """Put the views into the experiment, unless they are there; where its tags are not ours to write, leave it."""
    from mlflow.exceptions import MlflowException

    tags = client.get_experiment(experiment_id).tags
    for key, value in _views().items():
        if tags.get(_TAG + key) != value:
            with suppress(MlflowException):
                client.set_experiment_tag(experiment_id, _TAG + key, value)


def leaderboard_page(server: str, experiment_id: str) -> str:
    """The address of the trials sorted by BrierLM.

    Args:
        server: address of MLflow; credentials in it are left out.
    """
    return f"{_pages(server)}/#/experiments/{experiment_id}/runs?viewStateShareKey={TABLE}&compareRunsMode=TABLE"


def charts_page(server: str, experiment_id: str) -> str:
    """The address of the charts of BrierLM against training and inference FLOPs."""
    return f"{_pages(server)}/#/experiments/{experiment_id}/runs?viewStateShareKey={CHARTS}&compareRunsMode=CHART"


def _pages(server: str) -> str:
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _views() -> dict[str, str]:
    shown = {
        "searchFilter": f"tags.`{ROLE}` = 'trial'",
        "orderByKey": COLUMNS[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": list(COLUMNS),
        "columnWidths": dict.fromkeys(COLUMNS, 110),
        "runsHiddenMode": "SHOW_ALL",
    }
    charts, sections = _charts()
    drawn = {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}
    return {
        TABLE: _saved("Leaderboard (calm-bench)", shown, _MADE + 1),
        CHARTS: _saved("BrierLM against FLOPs (calm-bench)", shown | drawn, _MADE),
    }


def _saved(name: str, state: dict[str, Any], made: int) -> str:
    text = json.dumps(state, separators=(",", ":")).encode()
    # Compressed, as MLflow's pages do: a tag holds 5000 characters.
    packed = f"deflate;{base64.b64encode(zlib.compress(text)).decode()}"
    return json.dumps({"name": name, "createdAt": made, "state": packed})


def _charts() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Charts, and the sections they stand in; MLflow adds those of all other metrics below."""
    quality, orders = "calm-bench-quality", "calm-bench-orders"
    charts: list[dict[str, Any]] = [
        {
            "type": "SCATTER",
            "xaxis": {"key": metric, "type": "METRIC"},
            "yaxis": {"key": "brierlm", "type": "METRIC"},
            "metricSectionId": quality,
        }
        for metric in ("total_training_flops", "inference_flops_per_token")
    ]
    charts += [
        {
            "type": "BAR",
            "metricKey": f"brier/brier_{order}",
            "metricSectionId": orders,
        }
        for order in (1, 2, 3, 4)
    ]
    common = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    charts = [common | {"uuid": f"calm-bench-{number}"} | chart for number, chart in enumerate(charts)]
    sections = [
        {"uuid": section, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        for section, name in ((quality, "Quality against compute"), (orders, "Brier-1 to Brier-4"))
    ]
    return charts, sections
