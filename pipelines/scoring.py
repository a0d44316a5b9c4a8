"""Score a trained model on any text: what ``calm-bench eval`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from calm_bench.config import Corpus, Evaluation, Experiment
from calm_bench.opening import open_network, open_tokenizer, tokenizer_setting
from calm_bench.overrides import ConfigurationError, assign, parse_assignment, validate
from calm_bench.problems import check_path
from pipelines.models import TrainedModel
from pipelines.perform import perform
from pipelines.stage import STAGE_KINDS, StageGraph
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
    from calm_bench.tokens import TokenStream
    from evals.evaluate import ModelSampler, evaluate_brierlm
    from evals.protocol import protocol_for

    experiment, graph = prepare_text(model, store, overrides)
    protocol = protocol_for(
        experiment.evaluation,
        corpus_digest=store.result(graph["corpus"])["digest"],
        tokenizer_digest=open_tokenizer(experiment.tokens.tokenizer).digest,
    )
    stream = TokenStream.open(store.folder(graph["tokens"]), protocol.split)
    network = open_network(model.folder, device, model.autoencoder)
    if stream.vocab_size > network.vocab_size:
        raise ConfigurationError(
            f"the tokenizer has {stream.vocab_size} tokens, {model.folder} only {network.vocab_size}: "
            "it is not the model's; --tokenizer names another"
        )
    return evaluate_brierlm(ModelSampler(network), stream, protocol, progress)


def prepare_text(model: TrainedModel, store: Store, overrides: Sequence[str] = ()) -> tuple[Experiment, StageGraph]:
    """The corpus that ``model`` was trained on, changed by ``overrides``, in the model's own tokens and in ``store``.

    Returns:
        The experiment of which corpus and evaluation are meant, and its stages; those of corpus and tokens are done.

    Raises:
        ConfigurationError: as :func:`score_model`.
    """
    experiment = _experiment(model, overrides)
    graph = stages_for(experiment)
    for stage in (graph["corpus"], graph["tokens"]):
        perform(store, stage, STAGE_KINDS.get(stage.kind), "cpu", lambda: False)
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
