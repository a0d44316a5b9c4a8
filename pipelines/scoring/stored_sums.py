"""Per-document scores of a model: those that its evaluation left in the store, or scored now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.config import LanguageModel
from calm_bench.fingerprint import file_digest
from calm_bench.model_code import MODEL_CODE, model_code
from pipelines.store.integrity import recorded_digests
from pipelines.store.store import Store
from pipelines.study.stage_folder import StageRecord

if TYPE_CHECKING:
    from evals.sums import ScoredSums
    from pipelines.scoring.models import TrainedModel
    from pipelines.scoring.scoring import Scoring


def sums_of(scoring: Scoring, store: Store, progress: Callable[[int, int], None] | None = None) -> ScoredSums:
    """The sums under the protocol of ``scoring``; nothing is scored that the store holds.

    Raises:
        EvaluationError: the text is too short, or the protocol's positions do not fit the model's chunks.
    """
    wanted = scoring.protocol().hash
    found = _stored(scoring.model, store, wanted)
    return scoring.brierlm(None, progress).scored if found is None else found


def _stored(model: TrainedModel, store: Store, protocol_hash: str) -> ScoredSums | None:
    from evals.protocol import EvaluationError
    from evals.sums import FILE, load_sums

    identity = model.folder.parent.name
    trained = store.find_folder("language_model", identity)
    # The name of a folder says nothing about what lies in it: copies are changed, and folders renamed.
    if trained is None or model.autoencoder is not None or not _is_published(model.folder, trained):
        return None
    if not _has_its_code(trained):
        return None
    for stage in store.records("evaluation"):
        if stage.inputs["language_model"].identity != identity:
            continue
        folder = store.find_folder("evaluation", stage.identity)
        if folder is None:
            continue
        try:
            scored = load_sums(folder / FILE)
        except EvaluationError:
            # Evaluations from before sums were kept: scored again.
            continue
        if scored.protocol_hash == protocol_hash:
            return scored
    return None


def _is_published(model_folder: Path, stage_folder: Path) -> bool:
    """Whether a model's files are those that the stage published, byte for byte."""
    own = stage_folder / "model"
    published = recorded_digests(stage_folder, "model") or _digests(own)
    return _digests(model_folder) == published


def _has_its_code(stage_folder: Path) -> bool:
    """Whether the code from elsewhere that a model is made of is what its stage was trained and scored with."""
    config = StageRecord.load(stage_folder).config
    recorded = {name: config[name] for name in MODEL_CODE if name in config}
    return recorded == model_code(LanguageModel.model_validate(config["model"]))


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
