"""The text that a model is scored on: corpus and tokens in the store, made where they are missing or damaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from calm_bench.config import Corpus, Evaluation, Experiment
from calm_bench.corpora import SPLITS
from calm_bench.corpora.base import CorpusError
from calm_bench.opening import tokenizer_setting
from calm_bench.overrides import ConfigurationError, assign, parse_assignment, validate
from calm_bench.problems import check_path
from calm_bench.tokens.tokenizer import TokensError
from pipelines.execution.run_stage import quarantine_damaged, run_stage
from pipelines.scoring.models import TrainedModel
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.stage import StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS

SETTABLE = ("corpus", "evaluation")
"""Sections of a trained model's experiment that may be changed when it is scored."""
Found = TypeVar("Found")
TEXT = ("corpus", "tokens")
"""Kinds of the stages that make it, in order."""


def prepare_text(model: TrainedModel, store: Store, overrides: Sequence[str] = ()) -> tuple[Experiment, StageGraph]:
    """The corpus that ``model`` was trained on, changed by ``overrides``, in the model's own tokens and in ``store``.

    Returns:
        The experiment of which corpus and evaluation are meant, and its stages; those of corpus and tokens are done.

    Raises:
        ConfigurationError: an override of another key, a value that does not fit, or a model without tokenizer.
        StageError: a stage failed.
    """
    experiment = _experiment(model, overrides)
    graph = stages_for(experiment, corpus_identity_in(store))
    make_text(graph, store)
    return experiment, graph


def _experiment(model: TrainedModel, overrides: Sequence[str]) -> Experiment:
    settings: dict[str, Any] = {}
    for text in overrides:
        key, value = parse_assignment(text)
        check_path(Experiment, key)
        if key.split(".")[0] not in SETTABLE:
            raise ConfigurationError(f"{key} cannot be changed in a trained model; corpus.* and evaluation.* can")
        settings[key] = value
    base = {
        "corpus": model.corpus or Corpus().model_dump(mode="json"),
        "evaluation": model.evaluation or Evaluation().model_dump(mode="json"),
    }
    changed = assign(base, settings)
    return Experiment.model_construct(
        corpus=validate(Corpus, changed["corpus"], "corpus"),
        evaluation=validate(Evaluation, changed["evaluation"], "evaluation"),
        tokens=Experiment().tokens.model_copy(update={"tokenizer": _tokenizer(model)}),
        model=Experiment().model,
        autoencoder=Experiment().autoencoder,
        seed=0,
    )


def _tokenizer(model: TrainedModel) -> str:
    """The model's own tokenizer as a ``tokens.tokenizer`` setting, or the one that was named instead."""
    setting = model.tokenizer or tokenizer_setting(model.folder)
    if setting is None:
        raise ConfigurationError(
            f"{model.folder} holds no tokenizer, and text cannot be scored without: copy the model's into it, or name "
            "one (--tokenizer, a folder with a Hugging Face tokenizer, or bytes if the model's ids 0 to 255 are bytes)"
        )
    return setting


def make_text(graph: StageGraph, store: Store) -> None:
    """Run the stages of ``graph`` that make the text, where ``store`` lacks them.

    Raises:
        StageError: one of them failed.
    """
    for kind in TEXT:
        run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())


def read_text(kind: str, graph: StageGraph, store: Store, read: Callable[[Path], Found]) -> Found:
    """What ``read`` finds in the folder of the stage of ``kind``; what is damaged is made anew first.

    The folder of an object store's stage lacks its text: those files are brought that ``read`` reads, and stay.

    Raises:
        TokensError, CorpusError: the files are those that were published, and cannot be read.
        StageError: one of the stages cannot be made anew.
    """
    try:
        return read(text_folder(kind, graph, store))
    except (TokensError, CorpusError):
        damaged = quarantine_damaged([graph[each] for each in TEXT], store)
        if not damaged:
            raise
        warnings.warn(f"{'. '.join(damaged)}. It is made anew", stacklevel=2)
        make_text(graph, store)
        return read(text_folder(kind, graph, store))


def text_folder(kind: str, graph: StageGraph, store: Store) -> Path:
    """The folder of the stage of ``kind``, whose text may be kept elsewhere."""
    return store.fetch_without(graph[kind], SPLITS)
