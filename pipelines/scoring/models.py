"""Find a trained model: by its folder, or by the label it has on a leaderboard."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from calm_bench.json_text import parse_json_text
from calm_bench.opening import is_own_model
from calm_bench.overrides import ConfigurationError
from pipelines.results.entry import Entry
from pipelines.results.stored import stored_leaderboards
from pipelines.scoring.model_names import ModelNames, Scored, trial_named
from pipelines.store.errors import CorruptedStage
from pipelines.store.integrity import verify_folder
from pipelines.store.refs import StageRef
from pipelines.store.store import Store
from pipelines.store.study_names import how_to_begin, how_to_run_again
from pipelines.store.trial_record import has_begun, load_trials
from pipelines.study.stage_folder import StageRecord, is_finished

if TYPE_CHECKING:
    from evals.samplers import Sampler

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
    sampler: Sampler | None = None
    """A sampler of one's own, which has no weights to be read; ``folder`` is that of its code then."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: an autoencoder is given to a model that needs none.
            WeightsError: the folder cannot be read.
        """
        if self.autoencoder is not None and (self.sampler is not None or is_own_model(self.folder)):
            what = "a sampler of one's own" if self.sampler is not None else f"{self.folder}, which has what it needs"
            raise ConfigurationError(
                f"--autoencoder is for a released checkpoint that carries none, and would change nothing of {what}: "
                "leave it out"
            )


def find_model(name: str, store: Store) -> TrainedModel:
    """The model at the path ``name``, or with that name (:mod:`pipelines.scoring.model_names`) in ``store``.

    Raises:
        ConfigurationError: there is none, or there are several; says what to type instead.
    """
    if (found := _at_path(name, store)) is not None:
        return found
    names = ModelNames(stored_leaderboards(store))
    one = names.one(name)
    return _unscored(name, names, store) if one is None else _scored(one, store)


def open_code(target: str, tokenizer: str | None = None) -> TrainedModel:
    """The sampler ``target`` (``module:NAME``), whose code is imported and run; its tokens are bytes where no
    ``tokenizer`` is named.

    Raises:
        ConfigurationError, UnknownName: as :func:`evals.adapters.named_sampler.open_named_sampler`.
    """
    from evals.adapters.named_sampler import is_code_name, open_named_sampler

    if not is_code_name(target):
        raise ConfigurationError(f"--trust-code is for a sampler named as module:Class, and {target!r} is none")
    sampler = open_named_sampler(target)
    file = getattr(sys.modules[target.partition(":")[0]], "__file__", None)
    folder = Path(file).parent if file else Path.cwd()
    return TrainedModel(folder, tokenizer=tokenizer or "bytes", sampler=sampler)


def find_seeds(name: str, store: Store) -> list[TrainedModel]:
    """As :func:`find_model`, where ``name`` may mean several seeds of one configuration.

    Raises:
        ConfigurationError: there is none, or there are several that differ in more than their seeds.
    """
    if (found := _at_path(name, store)) is not None:
        return [found]
    names = ModelNames(stored_leaderboards(store))
    seeds = names.seeds(name)
    return [_scored(one, store) for one in seeds] or [_unscored(name, names, store)]


def split_names(text: str, store: Store) -> list[str]:
    """The models in ``text``, which stand there by comma; labels may hold commas themselves."""
    names = ModelNames(stored_leaderboards(store))
    parts, found = text.split(","), []
    while parts:
        # The longest beginning that means something; else the next part, for whoever looks it up to complain of.
        for length in range(len(parts), 0, -1):
            name = ",".join(parts[:length]).strip()
            if length == 1 or names.find(name) or Path(name).expanduser().is_dir():
                found.append(name)
                parts = parts[length:]
                break
    return found


def rows_of_model(model: TrainedModel, store: Store) -> list[Entry]:
    """The rows of ``model`` on leaderboards of ``store`` or of the store that it lies in, one a protocol; none where it
    is no stage's, or was never scored."""
    if model.sampler is not None or model.folder.name != "model" or not is_finished(model.folder.parent):
        return []
    identity = StageRecord.load(model.folder.parent).identity
    rows: dict[str, Entry] = {}
    for source in (store, _store_around(model.folder)):
        kept = source.find_folder("language_model", identity)
        # A copy elsewhere says that it is this stage, and may be something else by now.
        if model.autoencoder is not None or kept is None or kept.resolve() != model.folder.parent.resolve():
            continue
        for board in stored_leaderboards(source).values():
            for entry in board:
                if entry.model_identity == identity:
                    rows.setdefault(entry.protocol_hash, entry)
        if rows:
            break
    return list(rows.values())


def store_of(model: TrainedModel, store: Store) -> Store:
    """The store that keeps ``model``: ``store``, or another in whose folder it lies; ``store`` too for a model that is
    no stage's, such as an exported one."""
    stage = model.folder.parent
    if model.folder.name != "model" or stage.parent.parent.name != "stages" or not is_finished(stage):
        return store
    # What an object store keeps lies in a cache here.
    kept = store.find_folder(stage.parent.name, StageRecord.load(stage).identity)
    return store if kept is not None and kept.resolve() == stage.resolve() else _store_around(model.folder)


def _at_path(name: str, store: Store) -> TrainedModel | None:
    given = Path(name).expanduser()
    if not given.is_dir():
        given = _kept(name, store) or given
    if not given.is_dir():
        return None
    for folder in (given / "model", given):
        if any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            return _with_origin(folder.absolute(), _store_around(folder.absolute()))
    raise ConfigurationError(
        f"{given} holds no model: neither it nor its folder 'model' has weights ({' or '.join(WEIGHTS)})"
    )


def _scored(one: Scored, store: Store) -> TrainedModel:
    """The model of a row.

    Raises:
        ConfigurationError: the store has the row alone, as where its studies were copied without their stages.
    """
    entry = one.entry
    # The store may have moved since, or be no folder at all: its own stage counts.
    kept = store.find_folder("language_model", entry.model_identity)
    if kept is not None:
        return _published(kept, store)
    if not Path(entry.model_folder).is_dir():
        command = how_to_run_again(one.folder, store.uri)
        again = "" if command is None else f", or {command} makes it again"
        raise ConfigurationError(
            f"{entry.study}/{entry.label} has a row in the store {store.uri}, and its model is not there: bring "
            f"stages/language_model/{entry.model_identity} from where it was trained{again}"
        )
    return _with_origin(Path(entry.model_folder), store)


def _unscored(name: str, names: ModelNames, store: Store) -> TrainedModel:
    """The model of a trial that has no score yet.

    Raises:
        ConfigurationError: there is no such trial, or it has no model.
    """
    folders = store.studies.folders()
    if (found := trial_named(name, folders)) is not None:
        folder, number = found
        for trial in load_trials(folder) if has_begun(folder) else ():
            if trial.number == number:
                kept = store.find_folder("language_model", trial.stages.get("language_model", ""))
                if kept is not None:
                    return _published(kept, store)
                reason = f": {trial.error}" if trial.error else ""
                raise ConfigurationError(f"{name} ({trial.label}) has no trained model: it is {trial.state}{reason}")
    hint = names.unknown(name) or f"; no study has finished in the store {store.uri}: {how_to_begin(store.uri)}"
    raise ConfigurationError(f"there is no model {name!r}, neither as a folder nor on a leaderboard{hint}")


def _published(folder: Path, store: Store) -> TrainedModel:
    """The model of the finished stage in ``folder``, which a name stands for and not a path.

    Raises:
        CorruptedStage: it is not what was published.
    """
    if problems := verify_folder(folder):
        found = "; ".join(problems)
        raise CorruptedStage(
            [f"{folder} is damaged ({found}): remove it, and calm-bench run STUDY makes the stage again"]
        )
    return _with_origin(folder / "model", store)


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
        description = parse_json_text((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _store_around(folder: Path) -> Store:
    """The store that ``folder`` lies in, if it is ``root/stages/KIND/IDENTITY/model``."""
    return Store(folder.parent.parent.parent.parent)


def _with_origin(folder: Path, store: Store) -> TrainedModel:
    """What ``store`` tells about the model in ``folder``, if that is the ``model`` of one of its stages."""
    if folder.name != "model" or not is_finished(folder.parent):
        return TrainedModel(folder)
    stage = StageRecord.load(folder.parent)
    tokens = _input(store, stage, "tokens")
    corpus = _input(store, tokens, "corpus") if tokens else None
    return TrainedModel(
        folder,
        corpus=corpus.settings["corpus"] if corpus else None,
        evaluation=_evaluation_of(store, stage),
    )


def _input(store: Store, stage: StageRecord, name: str) -> StageRecord | None:
    source = stage.inputs.get(name)
    return None if source is None else store.record(StageRef(source.kind, source.identity))


def _evaluation_of(store: Store, model: StageRecord) -> dict[str, Any] | None:
    """The protocol under which ``store`` scored the model, whatever kind of stage trained it."""
    from evals.protocol import evaluation_settings

    for stage in store.records("evaluation"):
        if any((source.kind, source.identity) == (model.kind, model.identity) for source in stage.inputs.values()):
            return evaluation_settings(stage.config["protocol"])
    return None
