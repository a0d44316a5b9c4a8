"""One row of the leaderboard: a score, its error, what it was measured with and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, field_serializer, field_validator, model_validator

from calm_bench.errors import RunError
from calm_bench.fingerprint import identity
from calm_bench.frozen import Frozen
from evals.task_score import TaskScore
from pipelines.common.corpus_name import corpus_name
from pipelines.study.config import Study
from pipelines.study.row import FinishedStage, Measure
from pipelines.study.stage_kind import kind_or_none
from pipelines.study.stated_budget import stated_budget
from pipelines.study.trial import TrialRole

if TYPE_CHECKING:
    from calm_bench.config import Experiment
    from pipelines.study.stage import Stage, StageGraph
    from pipelines.study.trial import TrialOutcome

Scalar = str | int | float | bool | None
Four = tuple[float, float, float, float]
StandardError = Annotated[float, Field(ge=0)]
OTHER = "other"
"""Kind of models of others: a sampler of one's own, a model of transformers."""


class IncompleteOutcome(RunError, ValueError):
    """A trial that cannot be a row, because a stage's result is missing or lacks a number."""


class Compute(NamedTuple):
    """FLOPs behind a row."""

    training: float
    """Of the language model alone."""
    autoencoder: float
    total: float
    inference: float
    """Per generated token."""


class Entry(Frozen):
    """A scored model. FLOPs are totals over a training run, or per generated token; times are seconds.

    Brier-n are on their own scale (at most 1); BrierLM is 100 times their geometric mean (paper section 4).
    Errors are one standard error over ``error_unit``. The autoencoder's fields are ``None`` or 0 where there is none.
    What a model of others cost and how large it is may not be known, and is ``None`` then.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    study: str
    study_identity: Annotated[str, Field(exclude_if=lambda identity: not identity)] = ""
    """With the name, the study's folder; empty where the row is not read from one."""
    variant: Annotated[str, Field(exclude_if=lambda variant: not variant)] = ""
    """What sets the study apart from others of its name in the store it was read from."""
    text: Annotated[str, Field(exclude_if=lambda text: not text)] = ""
    """The text that was scored, as in ``stdlib, split test``; ``corpus_digest`` says exactly. Rows of earlier versions
    have none."""
    trial: int
    label: str
    settings: Annotated[tuple[tuple[str, Scalar], ...], Field(exclude_if=lambda settings: not settings)] = ()
    """What the search set, by dotted path of the experiment; anything but a scalar as JSON text."""
    kind: str
    """The family of models, as in ``model.kind``; :data:`OTHER` for a model of others."""
    chunk_size: int
    head: str | None = None
    role: Annotated[TrialRole, Field(exclude_if=lambda role: role == "search")] = "search"
    stratum: Annotated[str, Field(exclude_if=lambda label: not label)] = ""
    """Label of the search that the trial belongs to, or whose best it is; empty where the study is one search."""
    seed: int
    seeds: tuple[int, ...] = ()
    """The seeds of a row that stands for several of one configuration (:mod:`pipelines.results.pooling`)."""
    seed_error: float | None = None
    """The part of ``brierlm_se`` that is due to seeds, in such a row."""
    configuration: str = ""
    """Identity of the experiment without its seed, and of its arithmetic: rows in which it is equal differ by chance
    alone."""
    parameters: int | None = None
    """Trained parameters of the language model, without the frozen autoencoder (as in the paper's Table 1)."""
    autoencoder_parameters: int = 0
    autoencoder_accuracy: float | None = None
    """Share of held-out tokens that the autoencoder reconstructs."""
    brier: Four
    brier_se: tuple[StandardError, StandardError, StandardError, StandardError]
    brierlm: float
    brierlm_se: StandardError
    replicates: str = ""
    """BrierLM with each group of documents left out (:mod:`evals.replicates`), by which two rows are compared in pairs;
    empty where the evaluation kept no sums."""
    num_positions: int
    num_documents: int
    copied_documents: Annotated[int, Field(ge=0, exclude_if=lambda count: count == 0)] = 0
    """Documents of the split that are exact copies of an earlier one there; errors take them for one."""
    num_samples: int
    error_unit: Literal["document", "window"] = "document"
    """What the errors are over: windows where documents are too few (:data:`evals.clusters.MIN_DOCUMENTS`)."""
    estimator: str = "all-pairs"
    """How Brier-n was estimated; all estimators have one expectation, so it does not keep rows apart."""
    protocol_hash: str
    """Rows are comparable only where this is equal."""
    tasks: tuple[TaskScore, ...] = ()
    measures: Annotated[tuple[Measure, ...], Field(exclude_if=lambda measures: not measures)] = ()
    """What stages of kinds from elsewhere measured, each a column of its own."""
    training_flops: float | None = None
    """FLOPs of training the language model alone."""
    autoencoder_training_flops: float = 0.0
    total_training_flops: float | None = None
    """Language model and autoencoder. A shared autoencoder counts in full in every row that needs it."""
    inference_flops_per_token: float | None = None
    decode_mode: str
    wall_time_s: float | None = None
    total_wall_time_s: float | None = None
    tokens: float | None = None
    """Training tokens of the language model."""
    budget: str | None = None
    """What is equal among the language models of the study, with its amount (:mod:`pipelines.study.equal_budget`), as
    in ``equal-flops 3.5e+12``; ``None`` where each is trained as it is configured."""
    tokens_per_second: float | None = None
    """In training."""
    generated_tokens_per_second: float | None = None
    """Measured while it wrote the texts that people read (:mod:`pipelines.study.kinds.generation_speed`); ``None``
    where it wrote none, or not enough to tell."""
    generation: str = ""
    """How that was measured: decode mode, texts at once, device. Empty where it was not."""
    arithmetic: str = ""
    """Number format and kind of device of its training (:mod:`calm_bench.arithmetic`); empty where nobody told."""
    pretrained: Annotated[str, Field(exclude_if=lambda parts: not parts)] = ""
    """Parts that were trained elsewhere, ``autoencoder, model``: their training FLOPs are as the user states them."""
    corpus_digest: str
    model_identity: str
    """Identity of the stage that trained it. A row that stands for several seeds has the first one's."""
    model_identities: tuple[str, ...] = ()
    """Identities behind a row that stands for several seeds, one for each."""
    model_folder: str

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_are_pairs(cls, settings: object) -> object:
        if not isinstance(settings, Mapping):
            return settings
        return tuple((path, _scalar(value)) for path, value in settings.items())

    @field_serializer("settings")
    def _settings_by_path(self, settings: tuple[tuple[str, Scalar], ...]) -> dict[str, Scalar]:
        return dict(settings)

    @model_validator(mode="after")
    def _measures_have_names_of_their_own(self) -> Self:
        for measure in self.measures:
            if measure.key in type(self).model_fields:
                raise ValueError(f"measures: {measure.key} is a field of every row")
        return self

    @property
    def compute(self) -> Compute | None:
        """What it cost; None where its training or its inference FLOPs are not known."""
        training, total, inference = self.training_flops, self.total_training_flops, self.inference_flops_per_token
        if training is None or total is None or inference is None:
            return None
        return Compute(training, self.autoencoder_training_flops, total, inference)

    @property
    def parts(self) -> tuple[tuple[float, float], ...]:
        """Brier-n and their errors, in the order of n."""
        return tuple(zip(self.brier, self.brier_se, strict=True))

    @property
    def has_chunk_size(self) -> bool:
        """Whether K says something of it: a model of others that samples token by token was never asked for one."""
        return self.kind != OTHER or self.chunk_size > 1

    @property
    def family(self) -> str:
        """What rows of one kind share, in words: ``token``, ``K=4`` of CALM, ``patch K=4``, ``other``."""
        if self.kind == "token":
            return "token"
        if self.kind == OTHER:
            return OTHER
        # Not asked of the family, which a distribution may have brought that is not installed here.
        return f"K={self.chunk_size}" if self.kind == "calm" else f"{self.kind} K={self.chunk_size}"


def compute_of(entry: Entry) -> Compute:
    """What a row cost.

    Raises:
        ValueError: it is not known.
    """
    if entry.compute is None:
        raise ValueError(f"{entry.label} has no training or no inference FLOPs on record")
    return entry.compute


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
    known = {kind: _Result(outcome, kind, result) for kind, result in outcome.results.items()}
    # A kind from a distribution that is not installed here adds nothing to the row.
    parts = [
        kind.row_part(_finished(stage, outcome, known))
        for stage in graph.stages
        if (kind := kind_or_none(stage.kind)) is not None
    ]
    fields: dict[str, Any] = {}
    for part in parts:
        fields |= part.fields
    return Entry(
        study=study.name,
        text=f"{corpus_name(experiment.corpus.source)}, split {_split(graph)}",
        trial=outcome.number,
        label=outcome.label,
        settings=outcome.settings,
        kind=experiment.model.kind,
        chunk_size=experiment.model.chunk_size,
        head=experiment.model.head.kind if experiment.model.family.uses("head") else None,
        role=outcome.role,
        stratum=outcome.stratum,
        seed=experiment.seed,
        configuration=_configuration(experiment, fields["corpus_digest"], fields["arithmetic"]),
        total_training_flops=sum(part.training_flops for part in parts),
        total_wall_time_s=sum(part.wall_time_s for part in parts),
        budget=stated_budget(study, _base_vocab_size(outcome, study)),
        measures=tuple(measure for part in parts for measure in part.measures),
        **fields,
    )


def _scalar(value: object) -> Scalar:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


def _base_vocab_size(outcome: TrialOutcome, study: Study) -> int | None:
    """The vocabulary of the study's own tokens, where this trial has the same: what the budget's amount rests on."""
    base, own, tokens = study.experiment(), outcome.experiment, outcome.results.get("tokens", {})
    if own is None or "vocab_size" not in tokens or (own.corpus, own.tokens) != (base.corpus, base.tokens):
        return None
    return int(tokens["vocab_size"])


def _split(graph: StageGraph) -> str:
    return str(graph["evaluation"].config["protocol"]["split"])


def _finished(stage: Stage, outcome: TrialOutcome, known: Mapping[str, _Result]) -> FinishedStage:
    if stage.kind not in known:
        raise IncompleteOutcome(f"trial {outcome.number} ({outcome.label}) has no result of the stage {stage.kind!r}")
    folder = outcome.folders.get(stage.kind)
    address = outcome.addresses.get(stage.kind, f"stages/{stage.kind}/{stage.identity}")
    return FinishedStage(stage, known[stage.kind], folder, address, known)


def _configuration(experiment: Experiment, corpus_digest: str, arithmetic: str) -> str:
    sections = {"tokens", "model"} | ({"autoencoder"} if experiment.model.needs_autoencoder else set())
    described = [corpus_digest, experiment.model_dump(mode="json", include=sections)]
    # Seeds of unlike arithmetic are never pooled. Rows of CPUs keep the identity that they had before it was told.
    return identity(described if arithmetic == "fp32 on cpu" else [*described, arithmetic])


class _Result(dict[str, Any]):
    """A stage's result that says whose it is when a number is missing."""

    def __init__(self, outcome: TrialOutcome, kind: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._where = f"trial {outcome.number} ({outcome.label}), stage {kind!r}"

    def __missing__(self, key: str) -> Any:
        raise IncompleteOutcome(
            f"{self._where} has no {key!r} in its result; it has {', '.join(sorted(self)) or 'none'}"
        )
