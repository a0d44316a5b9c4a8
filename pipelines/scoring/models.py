"""Find a trained model: by its folder, or by the label it has on a leaderboard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard, load_board
from pipelines.store.refs import StageRef
from pipelines.store.store import Store
from pipelines.study.stage_folder import StageRecord, is_finished

SEED_MARK = "@"
"""``K=4@1`` is the model of seed 1."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Files of weights: this project's, and those that released checkpoints may have."""


@dataclass(frozen=True)
class TrainedModel:
    """A model's own folder, and what is known of its origin where a store trained it."""

    folder: Path
    """Holds ``config.json``, weights, and ``tokenizer/`` if this project trained it."""
    corpus: dict[str, Any] | None = None
    """The corpus settings it was trained with."""
    evaluation: dict[str, Any] | None = None
    """The protocol it was scored under, as settings of ``evaluation``."""
    tokenizer: str | None = None
    """A ``tokens.tokenizer`` setting to use instead of what the folder holds."""
    autoencoder: Path | None = None
    """Folder of the autoencoder of a released checkpoint that carries none."""


def find_model(name: str, store: Store) -> TrainedModel:
    """The model at the path ``name``, or called ``LABEL`` or ``STUDY/LABEL`` on a leaderboard of ``store``,
    with ``@SEED`` behind it where there are several.

    Raises:
        ConfigurationError: there is none; says what there is.
    """
    given = Path(name).expanduser()
    if not given.is_dir():
        given = _kept(name, store) or given
    if given.is_dir():
        for folder in (given / "model", given):
            if any(any(folder.glob(pattern)) for pattern in WEIGHTS):
                return _with_origin(folder.absolute(), _store_around(folder.absolute()))
        raise ConfigurationError(
            f"{given} holds no model: neither it nor its folder 'model' has weights ({' or '.join(WEIGHTS)})"
        )
    entries = [entry for board in stored_leaderboards(store).values() for entry in board]
    label, _, seed = name.rpartition(SEED_MARK) if SEED_MARK in name else (name, "", "")
    found = {
        entry.model_identity: entry
        for entry in entries
        if label in (entry.label, f"{entry.study}/{entry.label}") and seed in ("", str(entry.seed))
    }
    if len(found) > 1:
        names = ", ".join(
            sorted(f"{_full_name(entry)}{SEED_MARK}{entry.seed} in {entry.model_folder}" for entry in found.values())
        )
        raise ConfigurationError(
            f"{name!r} names {len(found)} models: {names}; give study and seed too, as written here, or the folder"
        )
    if not found:
        known = sorted({_full_name(entry) for entry in entries})
        hint = did_you_mean(name, known) if known else f"; no study has finished in the store {store.place}"
        raise ConfigurationError(f"there is no model {name!r}, neither as a folder nor on a leaderboard{hint}")
    entry = next(iter(found.values()))
    # The store may have moved since, or be no folder at all: its own stage counts.
    kept = store.find_folder("language_model", entry.model_identity)
    return _with_origin(Path(entry.model_folder) if kept is None else kept / "model", store)


def _kept(path: str, store: Store) -> Path | None:
    """The finished stage of ``store`` that ``path`` leads to, as a leaderboard gives it, whatever stands before.

    A store that was moved, or is an object store, is where it is now.
    """
    match PurePosixPath(path).parts:
        # In an object store one part more tells uploads of a stage apart.
        case [*_, "stages", kind, identity] | [*_, "stages", kind, identity, _] | [*_, "stages", kind, identity, _, _]:
            return store.find_folder(kind, identity)
    return None


def is_transformers_model(folder: Path) -> bool:
    """Whether ``folder`` holds a causal language model of transformers, rather than one of this project's kinds."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def stored_leaderboards(store: Store) -> dict[Path, Leaderboard]:
    """Every study's leaderboard in ``store``, by the study's folder.

    Raises:
        LeaderboardError: a file is not a leaderboard of this version.
    """
    found = {folder: load_board(folder) for folder in store.study_folders()}
    return {folder: board for folder, board in found.items() if board is not None}


def _full_name(entry: Entry) -> str:
    return f"{entry.study}/{entry.label}"


def _store_around(folder: Path) -> Store:
    """The store that ``folder`` lies in, if it is ``root/stages/KIND/IDENTITY/model``."""
    return Store(folder.parent.parent.parent.parent)


def _with_origin(folder: Path, store: Store) -> TrainedModel:
    """What ``store`` tells about the model in ``folder``, if that is the ``model`` of one of its stages."""
    if folder.name != "model" or not is_finished(folder.parent):
        return TrainedModel(folder)
    stage = StageRecord.load(folder.parent)
    if stage.kind not in ("autoencoder", "language_model"):
        return TrainedModel(folder)
    tokens = _input(store, stage, "tokens")
    corpus = _input(store, tokens, "corpus") if tokens else None
    return TrainedModel(
        folder,
        corpus=corpus.settings["corpus"] if corpus else None,
        evaluation=_evaluation_of(store, stage.identity) if stage.kind == "language_model" else None,
    )


def _input(store: Store, stage: StageRecord, name: str) -> StageRecord | None:
    source = stage.inputs[name]
    return store.record(StageRef(source.kind, source.identity))


def _evaluation_of(store: Store, identity: str) -> dict[str, Any] | None:
    from evals.protocol import evaluation_settings

    for stage in store.records("evaluation"):
        if stage.inputs["language_model"].identity == identity:
            return evaluation_settings(stage.config["protocol"])
    return None
