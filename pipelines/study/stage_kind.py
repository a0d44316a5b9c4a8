"""What a kind of stage answers, and the kinds by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import Registry, UnknownName
from pipelines.study.config import Execution
from pipelines.study.cost import UNKNOWN_COST, CostContext, StageCost
from pipelines.study.price import TrainingPrice
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.workload import Speed, Workload

RunStage = Callable[[Stage, Mapping[str, Path], Path, StageContext], dict[str, Any]]
"""``run(stage, input folders, work folder, context) -> result``.

The function writes its artifacts into the work folder, may find there what an interrupted attempt left, and returns
JSON. When ``context.stop()`` turns true it saves what it has and raises an exception named ``Interrupted``.
"""


class MetricPoint(NamedTuple):
    """A metric of MLflow at one step."""

    name: str
    value: float
    step: int = 0


def no_flops(stage: Stage, vocab_size: int) -> float:
    """Training FLOPs of a stage that trains nothing: 0."""
    return 0.0


def no_price(stage: Stage, vocab_size: int) -> None:
    """The price of a stage that trains nothing: none."""
    return


def unknown_cost(stage: Stage, context: CostContext) -> StageCost:
    """The cost of a stage of which nothing can be told beforehand."""
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
    return RowPart()


def never_refused(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The reason against a stage that any results of its inputs allow: none."""
    return None


def plug_in_changed(stage: Stage) -> str | None:
    """The code of a kind from another distribution where it is no longer what the stage was described with."""
    described = stage.config.get("code")
    is_same = described is None or STAGE_KINDS.code_digest(stage.kind) == described
    return None if is_same else f"the code of the kind of stage {stage.kind!r}"


def never_refused_by_files(stage: Stage, folders: Mapping[str, Path]) -> str | None:
    """The reason against a stage that any files of its inputs allow: none."""
    return None


def always_possible(stage: Stage, execution: Execution) -> None:
    """The reason against a stage that every configuration allows: none."""
    return


def in_one_piece(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a stage that does all its work itself has it done in parts: no."""
    return False


def reads_all(stage: Stage) -> Mapping[str, tuple[str, ...]]:
    """What may stay elsewhere of the inputs of a stage that reads them whole: nothing."""
    return {}


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
    heading: str = ""
    """What several are called in the head of a table: ``Language models``; empty where its name will do."""
    label_is_enough: bool = False
    """True where a stage's own label tells it from the others of its kind, without that of its trial."""
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
    """True for trainings that several workers can share (:mod:`calm_bench.training.workers`)."""
    impossible: Callable[[Stage, Execution], str | None] = always_possible
    """``impossible(stage, execution)``: why it would fail under ``execution``, whatever its inputs hold; None if
    nothing is known. Asked before anything of the study runs."""
    impossible_beside: Callable[[Stage, Mapping[str, Path]], str | None] = never_refused_by_files
    """``impossible_beside(stage, finished)``: as ``impossible``, given the folders of those of its inputs that are
    finished, by the names it knows them under; the others are yet to be made. It may take seconds: answer once for
    equal questions."""
    changed: Callable[[Stage], str | None] = plug_in_changed
    """``changed(stage)``: what it reads from outside of the store (text, folders, code) and is no longer what the stage
    was described with when the study was read; None where all is. Asked by the process that runs it, just before: a
    study may run for days, and its result stands for what was there at the beginning."""
    brings_code: bool = False
    """True where code that it names (``changed`` looks at it) is run by the stages that read it too."""
    in_parts: Callable[[Stage, Mapping[str, Mapping[str, Any]]], bool] = in_one_piece
    """``in_parts(stage, results)``: whether there is so much to do that other workers should do it in parts
    (``context.map_parts``), given the results of its inputs. The stage itself holds no CPU then."""
    left_elsewhere: Callable[[Stage], Mapping[str, tuple[str, ...]]] = reads_all
    """``left_elsewhere(stage)``: of inputs, by the names it knows them under, how the names of files begin that it does
    not read, or brings itself a few at a time (:mod:`calm_bench.kept_elsewhere`): they are not fetched from an object
    store for it."""
    scratch: tuple[str, ...] = ("checkpoints",)
    """Names in the work folder that serve resumption only and are removed when the result is published."""
    checked_when_opened: bool = False
    """True where the files can be large and their readers compare them with hashes of their own, so that a worker need
    not hash them before."""

    refusal: Callable[[Stage, Mapping[str, Mapping[str, Any]]], str | None] = never_refused
    """``refusal(stage, results)``: why it must fail, given the results of those of its inputs that are finished, by the
    names it knows them under; None if nothing is against it so far. Asked while other inputs are still to be made."""

    refusal_by_files: Callable[[Stage, Mapping[str, Path]], str | None] = never_refused_by_files
    """``refusal_by_files(stage, folders)``: as ``refusal``, given the folders of these inputs, of which an object store
    may have left files elsewhere. It may take seconds, and is asked by the driver: answer once for equal questions."""

    # What it costs
    section: str = ""
    """The section of an experiment whose training it runs (``model``, ``autoencoder``); empty where it runs none."""
    flops: Callable[[Stage, int], float] = no_flops
    """``flops(stage, vocab_size)``: training FLOPs of all its steps.

    Raises KeyError where an input that it needs is missing.
    """
    price: Callable[[Stage, int], TrainingPrice | None] = no_price
    """``price(stage, vocab_size)``: parameters, steps, tokens and FLOPs by part of its training, as ``plan --json`` has
    them; None where it trains nothing, or does not tell them."""
    cost: Callable[[Stage, CostContext], StageCost] = unknown_cost
    """``cost(stage, context)``: seconds, memory and disk, for a plan."""
    workload: Callable[[Experiment, int], Workload] | None = None
    """``workload(experiment, vocab_size)``: the model of an experiment that it trains, by whose speed a plan prices
    stages; None where it trains nothing."""
    measure: Callable[[Workload, str, float], Speed] | None = None
    """``measure(workload, device, seconds)``: how fast its trainings are on this machine, found in about so long; None
    where it trains nothing, or is not to be measured."""
    memory_advice: Callable[[Stage, str | None], str] = fewer_at_once
    """``memory_advice(stage, strategy)``: the size of a stage that did not fit into memory, and what makes it fit.

    ``strategy`` is ``ddp`` or ``fsdp`` where several workers shared it, else None.
    """

    # What comes of it
    summary: Callable[[Mapping[str, Any]], str] = no_summary
    """``summary(result)``: the number of a result that one wants to see first, in a few words; ``""`` for none."""
    row_part: Callable[[FinishedStage], RowPart] = no_row_part
    """``row_part(finished)``: what it adds to its trial's row on the leaderboard."""
    search_metrics: Mapping[str, Callable[[Mapping[str, Any]], float]] = field(default_factory=dict, hash=False)
    """``{name: read}``: the numbers of a result that a search may push up or down (``search.objectives``) or bound
    (``search.constraints``), each by ``read(result)``, which raises KeyError where it is missing. A name that a kind
    that ships uses means that one's."""
    metrics: Callable[[Mapping[str, Any]], Iterable[MetricPoint]] = no_metrics
    """``metrics(result)``: what goes to MLflow beside the row's numbers."""
    streams_metrics: bool = False
    """True where the lines of its ``metrics.jsonl`` go to MLflow, with the FLOPs spent so far in each."""
    metric_prefix: str | None = None
    """Before the names of these metrics; unset means its name. Empty for the stage that trains a trial's model, whose
    loss is shown by FLOPs too."""
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


def check_possible(
    stages: Iterable[Stage],
    execution: Execution,
    is_done: Callable[[Stage], bool],
    folder_of: Callable[[Stage], Path],
) -> None:
    """Refuse stages, of those that are not done, that would fail whatever comes of the others.

    Args:
        folder_of: where a stage that is done lies; of an object store it need not be here.

    Raises:
        ConfigurationError: there is one; says which and what to change.
    """
    for stage in stages:
        kind = STAGE_KINDS.get(stage.kind)
        reason = kind.impossible(stage, execution)
        if reason is None and kind.impossible_beside is not never_refused_by_files:
            finished = {name: folder_of(source) for name, source in stage.inputs.items() if is_done(source)}
            reason = kind.impossible_beside(stage, finished)
        if reason is not None and not is_done(stage):
            raise ConfigurationError(f"{stage}: {reason}")


def workloads_of(kinds: Iterable[str], experiment: Experiment, vocab_size: int) -> Iterator[Workload]:
    """The models of ``experiment`` that stages of ``kinds`` train, in their order."""
    for name in kinds:
        if (workload := STAGE_KINDS.get(name).workload) is not None:
            yield workload(experiment, vocab_size)


def streams_metrics(kind: str) -> bool:
    """Whether the lines that stages of ``kind`` log go to MLflow while they run."""
    known = kind_or_none(kind)
    return known is not None and known.streams_metrics


def metric_prefix(kind: str) -> str:
    """What stands before the names of the metrics that stages of ``kind`` log."""
    known = kind_or_none(kind)
    return f"{kind}_" if known is None or known.metric_prefix is None else known.metric_prefix


def heading_of(kind: str) -> str:
    """What several stages of ``kind`` are called in the head of a table."""
    known = kind_or_none(kind)
    return kind if known is None or not known.heading else known.heading


def summary_of(kind: str, result: Mapping[str, Any]) -> str:
    """The number of a stage's result that one wants to see first; empty for kinds that have none or are unknown."""
    known = kind_or_none(kind)
    return "" if known is None or not result else known.summary(result)
