"""Score a trained model on any text: what ``calm-bench eval`` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from calm_bench.config import Corpus, Evaluation, Experiment
from calm_bench.overrides import ConfigurationError, assign, parse_assignment, validate
from calm_bench.problems import check_path
from pipelines.models import TrainedModel
from pipelines.perform import perform
from pipelines.stage import STAGE_KINDS
from pipelines.stages import stages_for
from pipelines.store import Store

if TYPE_CHECKING:
    from evals.evaluate import BrierResult

SETTABLE = ("corpus", "evaluation")


def score_model(
    model: TrainedModel,
    store: Store,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> BrierResult:
    """BrierLM of ``model`` under the protocol it was scored with before, changed by ``overrides``.

    A model without known origin is scored on the default corpus under the default protocol. Text is tokenised with the
    model's own tokenizer; corpus and tokens are kept in ``store``.

    Args:
        overrides: assignments to ``corpus.*`` and ``evaluation.*``.

    Raises:
        ConfigurationError: other keys, or values that do not fit.
        EvaluationError: the text is too short, or the protocol's positions do not fit the model's chunks.
    """
    from calm_bench.lm import load_language_model
    from calm_bench.tokens import TokenStream, load_tokenizer
    from evals.evaluate import ModelSampler, evaluate_brierlm
    from evals.protocol import protocol_for

    experiment = _experiment(model, overrides)
    graph = stages_for(experiment)
    for stage in (graph["corpus"], graph["tokens"]):
        perform(store, stage, STAGE_KINDS.get(stage.kind), "cpu", lambda: False)
    protocol = protocol_for(
        experiment.evaluation,
        corpus_digest=store.result(graph["corpus"])["digest"],
        tokenizer_digest=load_tokenizer(model.folder / "tokenizer").digest,
    )
    stream = TokenStream.open(store.folder(graph["tokens"]), protocol.split)
    sampler = ModelSampler(load_language_model(model.folder, device))
    return evaluate_brierlm(sampler, stream, protocol, progress)


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
    """The model's own tokenizer as a ``tokens.tokenizer`` setting."""
    from calm_bench.tokens.tokenizer import DESCRIPTION

    path = model.folder / "tokenizer" / DESCRIPTION
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{model.folder} holds no tokenizer that can be read ({error})") from error
    # Bytes are the same everywhere, so the tokens that the study wrote serve again.
    return "bytes" if kind == "bytes" else str(path.parent)
