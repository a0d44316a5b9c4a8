"""A stage: one reproducible step of an experiment, named by what its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from calm_bench.errors import StopRequested
from calm_bench.fingerprint import identity
from calm_bench.registry import Registry, UnknownName

if TYPE_CHECKING:
    from pipelines.study.cost import CostContext, StageCost
    from pipelines.study.row import FinishedStage, RowPart


class Interrupted(StopRequested):
    """Work stopped because it was asked to; what was done is kept and the next run continues from it."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step: its kind, its configuration and the stages it reads.

    Two stages are equal when their identities are, wherever and for whichever trial they were described.
    """

    kind: str
    revision: int
    """Raised when the code of a kind changes its results, so that older results are not taken for new ones."""
    config: Mapping[str, Any]
    """JSON; everything of the experiment that the result depends on, and nothing else."""
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """Stages whose folders this one reads, by the name it knows them under."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON needed to run but not part of the identity: where an input lies, when the identity holds its content."""
    label: str = ""
    """For people, as in ``autoencoder K=4``; not part of the identity."""

    @cached_property
    def identity(self) -> str:
        """16 hex digits of kind, revision, configuration and the identities of the inputs."""
        return identity(
            {
                "kind": self.kind,
                "revision": self.revision,
                "config": self.config,
                "inputs": {name: stage.identity for name, stage in self.inputs.items()},
            }
        )

    @property
    def name(self) -> str:
        """``kind-identity``: unique within a store and usable as a file name."""
        return f"{self.kind}-{self.identity}"

    def description(self) -> dict[str, Any]:
        """What is written as ``config.json`` of the stage's folder."""
        return {
            "kind": self.kind,
            "revision": self.revision,
            "identity": self.identity,
            "label": self.label or self.kind,
            "config": dict(self.config),
            "settings": dict(self.settings),
            "inputs": {name: {"kind": stage.kind, "identity": stage.identity} for name, stage in self.inputs.items()},
        }

    def __str__(self) -> str:
        return self.label or self.kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and (self.kind, self.identity) == (other.kind, other.identity)

    def __hash__(self) -> int:
        return hash((self.kind, self.identity))


@dataclass(frozen=True)
class StageGraph(Mapping[str, Stage]):
    """The stages of one trial by kind, each after the stages it reads; the last one is the trial's result.

    Raises:
        ValueError: a stage stands before one of its inputs, or reads a stage that is not in the graph.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        seen: set[Stage] = set()
        for stage in self.stages:
            for source in stage.inputs.values():
                if source not in seen:
                    raise ValueError(f"{stage} reads {source}, which does not stand before it in the graph")
            if any(other.kind == stage.kind for other in seen):
                raise ValueError(f"a graph has one stage of each kind, found a second {stage.kind}")
            seen.add(stage)

    def __getitem__(self, kind: str) -> Stage:
        for stage in self.stages:
            if stage.kind == kind:
                return stage
        raise KeyError(kind)

    def __iter__(self) -> Iterator[str]:
        return (stage.kind for stage in self.stages)

    def __len__(self) -> int:
        return len(self.stages)


RunStage = Callable[[Stage, Mapping[str, Path], Path, str, Callable[[], bool]], dict[str, Any]]
"""``run(stage, input folders, work folder, device, stop) -> result``.

The function writes its artifacts into the work folder, may find there what an interrupted attempt left, and returns
JSON. When ``stop()`` turns true it saves what it has and raises an exception named ``Interrupted``.
"""


class MetricPoint(NamedTuple):
    """A metric of MLflow at one step."""

    name: str
    value: float
    step: int = 0


def no_flops(stage: Stage, vocab_size: int) -> float:
    """Training FLOPs of a stage that trains nothing: 0."""
    return 0.0


def unknown_cost(stage: Stage, context: CostContext) -> StageCost:
    """The cost of a stage of which nothing can be told beforehand."""
    from pipelines.study.cost import UNKNOWN_COST

    return UNKNOWN_COST


def fewer_at_once(stage: Stage, strategy: str | None) -> str:
    """What makes any stage fit into memory."""
    return (
        "it was given no more memory than that: let fewer stages run at once (execution.max_parallel), or declare "
        "what one needs (execution.memory_per_stage)"
    )


def no_summary(result: Mapping[str, Any]) -> str:
    """The summary of a stage whose result has no number that one wants to see first: empty."""
    return ""


def no_row_part(finished: FinishedStage) -> RowPart:
    """The part of a stage that adds nothing to its trial's row."""
    from pipelines.study.row import RowPart

    return RowPart()


def never_refused(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The reason against a stage that any results of its inputs allow: none."""
    return None


def no_metrics(result: Mapping[str, Any]) -> Iterable[MetricPoint]:
    """The metrics of a stage that has none beside those of its trial's row."""
    return ()


def no_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a kind that has none.

    Raises:
        ValueError: some are given.
    """
    if settings:
        raise ValueError(f"it has no settings, found {', '.join(sorted(settings))}")
    return {}


@dataclass(frozen=True)
class StageKind:
    """All that is asked of a kind of stages. Only ``name`` and ``run`` are needed; the rest has defaults.

    A stage of a worker's process is run by ``run`` alone; everything else is asked by whoever plans, watches or shows
    a study, so it must not import what takes seconds (torch, transformers) before it is called.
    """

    name: str
    run: RunStage
    revision: int = 1
    """Raised when the code of the kind changes its results, so that older results are not taken for new ones."""

    # How it is run
    uses_torch: bool = True
    """False spares a worker that only moves text the import of torch."""
    get_ready: Callable[[], object] | None = None
    """Imports what takes seconds to import, before the stage's own time begins."""
    uses_device: bool = True
    """False for stages that gain nothing from a GPU, so none is reserved for them."""
    data_parallel: bool = False
    """True for trainings that several workers can share (:mod:`calm_bench.training.parallel`)."""
    scratch: tuple[str, ...] = ("checkpoints",)
    """Names in the work folder that serve resumption only and are removed when the result is published."""
    checked_when_opened: bool = False
    """True where the files can be large and their readers compare them with hashes of their own, so that a worker need
    not hash them before."""

    refusal: Callable[[Stage, Mapping[str, Mapping[str, Any]]], str | None] = never_refused
    """``refusal(stage, results)``: why it must fail, given the results of those of its inputs that are finished, by the
    names it knows them under; None if nothing is against it so far. Asked while other inputs are still to be made."""

    # What it costs
    section: str = ""
    """The section of an experiment whose training it runs (``model``, ``autoencoder``); empty where it runs none."""
    flops: Callable[[Stage, int], float] = no_flops
    """``flops(stage, vocab_size)``: training FLOPs of all its steps.

    Raises KeyError where an input that it needs is missing.
    """
    cost: Callable[[Stage, CostContext], StageCost] = unknown_cost
    """``cost(stage, context)``: seconds, memory and disk, for a plan."""
    memory_advice: Callable[[Stage, str | None], str] = fewer_at_once
    """``memory_advice(stage, strategy)``: the size of a stage that did not fit into memory, and what makes it fit.

    ``strategy`` is ``ddp`` or ``fsdp`` where several workers shared it, else None.
    """

    # What comes of it
    summary: Callable[[Mapping[str, Any]], str] = no_summary
    """``summary(result)``: the number of a result that one wants to see first, in a few words; ``""`` for none."""
    row_part: Callable[[FinishedStage], RowPart] = no_row_part
    """``row_part(finished)``: what it adds to its trial's row on the leaderboard."""
    metrics: Callable[[Mapping[str, Any]], Iterable[MetricPoint]] = no_metrics
    """``metrics(result)``: what goes to MLflow beside the row's numbers."""
    streams_metrics: bool = False
    """True where the lines of its ``metrics.jsonl`` go to MLflow, with the FLOPs spent so far in each."""
    artifacts: tuple[str, ...] = ()
    """Files of its folder that MLflow keeps with the trial's run."""

    # How a study asks for it
    reads: tuple[str, ...] = ()
    """The kinds of stages whose folders it reads, those of them that a trial has, where a study may ask for it in
    ``extra_stages``; empty where it is part of every study or has a section of its own."""
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_settings
    """``settings(given)``: the settings of an entry of ``extra_stages``, checked and complete, as JSON. They are part
    of the stage's identity and stand in its ``config["settings"]``.

    Raises ValueError where they cannot be.
    """


STAGE_KINDS: Registry[StageKind] = Registry(
    "stage",
    {
        "corpus": "pipelines.study.kinds.corpus:CORPUS",
        "tokens": "pipelines.study.kinds.tokens:TOKENS",
        "autoencoder": "pipelines.study.kinds.autoencoder:AUTOENCODER",
        "language_model": "pipelines.study.kinds.language_model:LANGUAGE_MODEL",
        "evaluation": "pipelines.study.kinds.evaluation:EVALUATION",
        "samples": "pipelines.study.kinds.samples:SAMPLES",
        "benchmarks": "pipelines.study.kinds.benchmarks:BENCHMARKS",
        "trajectory": "pipelines.study.kinds.trajectory:TRAJECTORY",
    },
    one="kind of stage",
)
"""Kinds by name; a distribution adds its own through the entry point group ``calm_bench.stage``."""


def kind_or_none(name: str) -> StageKind | None:
    """The kind called ``name``; None where it came from a distribution that is not installed here.

    For those who show what another machine has run, and can do without.
    """
    try:
        return STAGE_KINDS.get(name)
    except UnknownName:
        return None


def streams_metrics(kind: str) -> bool:
    """Whether the lines that stages of ``kind`` log go to MLflow while they run."""
    known = kind_or_none(kind)
    return known is not None and known.streams_metrics


def summary_of(kind: str, result: Mapping[str, Any]) -> str:
    """The number of a stage's result that one wants to see first; empty for kinds that have none or are unknown."""
    known = kind_or_none(kind)
    return "" if known is None or not result else known.summary(result)
