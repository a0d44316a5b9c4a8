"""One row of the leaderboard: a score, its error, what it was measured with and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

from calm_bench.fingerprint import identity
from calm_bench.frozen import Frozen
from evals.task_score import TaskScore
from pipelines.results.replicates import stored_replicates
from pipelines.study.config import Study
from pipelines.study.kinds.generation_speed import chosen_speed, in_words
from pipelines.study.stated_budget import stated_budget

if TYPE_CHECKING:
    from calm_bench.config import Experiment
    from pipelines.study.trial import TrialOutcome

Four = tuple[float, float, float, float]


class IncompleteOutcome(ValueError):
    """A trial that cannot be a row, because a stage's result is missing or lacks a number."""


class Entry(Frozen):
    """A scored model. FLOPs are totals over a training run, or per generated token; times are seconds.

    Brier-n are on their own scale (at most 1); BrierLM is 100 times their geometric mean (paper section 4).
    Errors are one standard error over documents. The autoencoder's fields are ``None`` or 0 for a token model.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    study: str
    trial: int
    label: str
    kind: Literal["calm", "token"]
    chunk_size: int
    head: str | None = None
    seed: int
    seeds: tuple[int, ...] = ()
    """Of a row that stands for several seeds of one configuration (:mod:`pipelines.results.pooling`)."""
    seed_error: float | None = None
    """The part of ``brierlm_se`` that is due to seeds, in such a row."""
    configuration: str = ""
    """Identity of the experiment without its seed: rows in which it is equal differ by chance alone."""
    parameters: int
    """Trained parameters of the language model, without the frozen autoencoder (as in the paper's Table 1)."""
    autoencoder_parameters: int = 0
    autoencoder_accuracy: float | None = None
    """Share of held-out tokens that the autoencoder reconstructs."""
    brier: Four
    brier_se: Four
    brierlm: float
    brierlm_se: float
    replicates: str = ""
    """BrierLM with each group of documents left out (:mod:`evals.replicates`), by which two rows are compared in pairs;
    empty where the evaluation kept no sums."""
    num_positions: int
    num_documents: int
    num_samples: int
    estimator: str = "all-pairs"
    """How Brier-n was estimated; all estimators have one expectation, so it does not keep rows apart."""
    protocol_hash: str
    """Rows are comparable only where this is equal."""
    tasks: tuple[TaskScore, ...] = ()
    training_flops: float
    """Of the language model alone."""
    autoencoder_training_flops: float = 0.0
    total_training_flops: float
    """Language model and autoencoder. A shared autoencoder counts in full in every row that needs it."""
    inference_flops_per_token: float
    decode_mode: str
    wall_time_s: float
    total_wall_time_s: float
    tokens: float
    """Training tokens of the language model."""
    budget: str | None = None
    """What is equal among the language models of the study, with its amount (:mod:`pipelines.study.equal_budget`), as
    in ``equal-flops 3.5e+12``; ``None`` where each is trained as it is configured."""
    tokens_per_second: float
    """In training."""
    generated_tokens_per_second: float | None = None
    """Measured while it wrote the texts that people read (:mod:`pipelines.study.kinds.generation_speed`); ``None``
    where it wrote none, or not enough to tell."""
    generation: str = ""
    """How that was measured: decode mode, texts at once, device. Empty where it was not."""
    corpus_digest: str
    model_identity: str
    """Of the stage that trained it. A row that stands for several seeds has the first one's."""
    model_identities: tuple[str, ...] = ()
    """Of a row that stands for several seeds, one for each."""
    model_folder: str

    @property
    def family(self) -> str:
        """What rows of one kind share, in words: ``token`` or ``K=4``."""
        return "token" if self.kind == "token" else f"K={self.chunk_size}"


def entry_from(outcome: TrialOutcome, study: Study) -> Entry:
    """The row of a finished trial.

    Raises:
        IncompleteOutcome: the trial failed, or a stage's result lacks something that a row must show.
    """
    experiment = outcome.experiment
    graph = outcome.graph
    if outcome.state != "complete" or experiment is None or graph is None:
        raise IncompleteOutcome(
            f"trial {outcome.number} ({outcome.label}) has no row: {outcome.error or outcome.state}"
        )
    results = _Results(outcome.number, outcome.label, outcome.results)
    is_token = experiment.model.kind == "token"
    model = results.of("language_model")
    score = results.of("evaluation")
    autoencoder = None if is_token else results.of("autoencoder")
    corpus = results.of("corpus")
    folder = outcome.folders["language_model"]
    # A store that was written before speeds were measured has none.
    speed = chosen_speed(outcome.results.get("samples", {}).get("speed", ()), model["decode_mode"])

    training_flops = float(model["training_flops"])
    autoencoder_flops = 0.0 if autoencoder is None else float(autoencoder["training_flops"])
    wall_time_s = float(model["wall_time_s"])
    return Entry(
        study=study.name,
        trial=outcome.number,
        label=outcome.label,
        kind=experiment.model.kind,
        chunk_size=experiment.model.chunk_size,
        head=None if is_token else experiment.model.head.kind,
        seed=experiment.seed,
        configuration=_configuration(experiment, corpus["digest"]),
        parameters=int(model["parameters"]),
        autoencoder_parameters=0 if autoencoder is None else int(autoencoder["parameters"]),
        autoencoder_accuracy=None if autoencoder is None else float(autoencoder["accuracy"]),
        brier=score["brier"],
        brier_se=score["brier_se"],
        brierlm=score["brierlm"],
        brierlm_se=score["brierlm_se"],
        replicates=stored_replicates(outcome.folders.get("evaluation"), score["protocol_hash"]),
        num_positions=score["num_positions"],
        num_documents=score["num_documents"],
        num_samples=score["num_samples"],
        estimator=score.get("estimator", "all-pairs"),
        protocol_hash=score["protocol_hash"],
        tasks=tuple(TaskScore.model_validate(task) for task in outcome.results.get("benchmarks", {}).get("tasks", ())),
        training_flops=training_flops,
        autoencoder_training_flops=autoencoder_flops,
        total_training_flops=training_flops + autoencoder_flops,
        inference_flops_per_token=float(model["inference_flops_per_token"]),
        decode_mode=model["decode_mode"],
        wall_time_s=wall_time_s,
        total_wall_time_s=wall_time_s + (0.0 if autoencoder is None else float(autoencoder["wall_time_s"])),
        tokens=float(model["tokens"]),
        budget=stated_budget(study),
        tokens_per_second=float(model["tokens_per_second"]),
        generated_tokens_per_second=None if speed is None else float(speed["tokens_per_second"]),
        generation="" if speed is None else in_words(speed),
        corpus_digest=corpus["digest"],
        model_identity=graph["language_model"].identity,
        model_folder=f"{outcome.addresses.get('language_model', folder)}/model",
    )


def _configuration(experiment: Experiment, corpus_digest: str) -> str:
    sections = {"tokens", "model"} | ({"autoencoder"} if experiment.model.kind == "calm" else set())
    return identity([corpus_digest, experiment.model_dump(mode="json", include=sections)])


class _Result(dict[str, Any]):
    """A stage's result that says whose it is when a number is missing."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._where = where

    def __missing__(self, key: str) -> Any:
        raise IncompleteOutcome(
            f"{self._where} has no {key!r} in its result; it has {', '.join(sorted(self)) or 'none'}"
        )


class _Results:
    def __init__(self, number: int, label: str, results: Mapping[str, Mapping[str, Any]]) -> None:
        self._trial = f"trial {number} ({label})"
        self._results = results

    def of(self, kind: str) -> _Result:
        if kind not in self._results:
            raise IncompleteOutcome(f"{self._trial} has no result of the stage {kind!r}")
        return _Result(f"{self._trial}, stage {kind!r}", self._results[kind])
