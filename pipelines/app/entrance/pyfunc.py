"""Our models behind ``mlflow.pyfunc``: a run's or a registered version's, prompts in, texts out.

    model = mlflow.pyfunc.load_model("models:/NAME@best", model_config={"store": "runs", "device": "cuda"})
    model.predict(["def main"], params={"max_new_tokens": 50, "temperature": 0.5})

MLflow calls :func:`_load_pyfunc`, whose name is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.overrides import ConfigurationError
from pipelines.common.record_file import read_object
from pipelines.tracking.address import sqlite_path
from pipelines.tracking.pyfunc_files import COPY_FOLDER, REFERENCE_FILE

if TYPE_CHECKING:
    from pipelines.app.entrance.model import Model

DEFAULT_STORE = "runs"
_KIND = "language_model"


class TextModel:
    """What MLflow asks for texts."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, prompts: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """The text after each prompt; a prompt gets the same text whatever others are given with it.

        Args:
            prompts: a data frame with one column of texts, or the texts.
            params: arguments of :meth:`calm_bench.Model.generate`.
        """
        return [self.model.generate(prompt, **(params or {})) for prompt in _texts(prompts)]

    def predict_stream(self, prompts: Any, params: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The pieces of the text after one prompt as they are drawn; MLflow refuses several."""
        (prompt,) = _texts(prompts)
        return self.model.stream(prompt, **(params or {}))


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> TextModel:
    """The model of the artifacts at ``path``: their copy of it, else the stage that they refer to.

    Args:
        model_config: ``store``, where the model is neither in the store that holds MLflow's database nor in ``runs``;
            ``device``.

    Raises:
        ConfigurationError: no store that is looked into has it; says how to name one.
    """
    from pipelines.app.entrance.model import load_model

    folder, settings = Path(path), dict(model_config or {})
    device = settings.get("device") or "cpu"
    if (folder / COPY_FOLDER).is_dir():
        return TextModel(load_model(folder / COPY_FOLDER, device=device))
    reference = read_object(folder / REFERENCE_FILE, "calm-bench mlflow sync writes it again")
    found = _in_a_store(str(reference["identity"]), settings.get("store") or "")
    return TextModel(load_model(found, device=device))


def _in_a_store(identity: str, store: str) -> Path:
    """The folder of the stage ``identity`` in ``store``; unset, in the store that holds MLflow's database, or in
    ``runs``.

    Raises:
        ConfigurationError: it is in none of them.
    """
    from pipelines.store.opening import open_store

    places = [store] if store else [*_store_of_the_database(), DEFAULT_STORE]
    for place in places:
        found = open_store(place).find_folder(_KIND, identity)
        if found is not None:
            return found / "model"
    raise ConfigurationError(
        f"the model {identity} is not in {' or '.join(places)}: name its store, as in "
        'mlflow.pyfunc.load_model(..., model_config={"store": "PATH"}); a study with tracking.log_models=true has '
        "MLflow keep a copy"
    )


def _store_of_the_database() -> list[str]:
    """The store in which MLflow's database lies, as it does unless ``tracking.uri`` says otherwise."""
    import mlflow

    path = sqlite_path(mlflow.get_tracking_uri())
    return [] if path is None else [str(path.parent)]


def _texts(prompts: Any) -> list[str]:
    if isinstance(prompts, str):
        return [prompts]
    # A data frame gives its columns' names where it is iterated.
    values = prompts.iloc[:, 0] if hasattr(prompts, "iloc") else prompts
    return [str(value) for value in values]
