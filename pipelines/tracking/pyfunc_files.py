"""What makes ``mlflow.pyfunc.load_model`` load a trial's model: files beside its provenance among the run's artifacts.

    MLmodel         which module of ours loads it, and what it takes and gives
    reference.json  which stage trained it: its weights stay in the store, which is found when it is loaded
    model/          a copy of it, with ``tracking.log_models``

Nothing in them is code: MLflow imports the module that is named, which is installed with calm-bench.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.atomic import write_json
from pipelines.results.entry import Entry

if TYPE_CHECKING:
    from mlflow.models.signature import ModelSignature

FOLDER = "language_model"
"""Among a run's artifacts: the kind of the stage that trained the model."""
LOADER = "pipelines.app.entrance.pyfunc"
REFERENCE_FILE = "reference.json"
COPY_FOLDER = "model"


def write_pyfunc_files(folder: Path, entry: Entry, when: int) -> None:
    """Write ``MLmodel`` and ``reference.json`` of the model behind ``entry`` into ``folder``. They name no run, so that
    they are the same files in every tracking store.

    Args:
        when: milliseconds since 1970 that the model is dated with.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    write_json(folder / REFERENCE_FILE, {"identity": entry.model_identity, "label": entry.label})
    model = Model(
        artifact_path=FOLDER,
        utc_time_created=datetime.fromtimestamp(when / 1000, UTC).replace(tzinfo=None),
        signature=_signature(),
        model_uuid=entry.model_identity,
    )
    # Only what has a value here can be given when the model is loaded.
    pyfunc.add_to_model(model, LOADER, model_config={"store": "", "device": "cpu"}, streamable=True)
    model.save(str(folder / "MLmodel"))


def _signature() -> ModelSignature:
    """Prompts to texts, with the arguments of :meth:`calm_bench.Model.generate`."""
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text = Schema([ColSpec(DataType.string)])
    parameters = ParamSchema(
        [
            ParamSpec("max_new_tokens", DataType.long, 200),
            ParamSpec("temperature", DataType.double, 1.0),
            ParamSpec("method", DataType.string, "exact"),
            ParamSpec("candidates", DataType.long, 200),
            ParamSpec("seed", DataType.long, 0),
        ]
    )
    return ModelSignature(inputs=text, outputs=text, params=parameters)
