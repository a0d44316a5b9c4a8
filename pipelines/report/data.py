"""What a report shows, as plain values: the page draws these and computes nothing that a table does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT = "calm-bench report"
VERSION = 3

Number = float | None


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard, and an axis where it holds numbers."""

    key: str
    title: str
    unit: str = ""
    error: str | None = None
    """Key of the column's standard error."""
    better: Literal["high", "low"] | None = None
    """Which end people want; None where there is none."""
    log: bool = False
    """Whether an axis is logarithmic unless the reader says otherwise."""
    form: Literal["text", "score", "flops", "count", "share", "duration", "whole", "setting"] = "score"
    shown: bool = True
    """False for columns that the reader has to ask for."""
    axis: bool = True


@dataclass(frozen=True)
class SeedRun:
    """One training behind a row: the trial of a study, with its run in MLflow where there is one."""

    study: int
    trial: int
    seed: int
    url: str | None
    model: str
    """Identity of the language model, by which texts are found."""
    trained: Mapping[str, str]
    """Identities of the trial's trainings by kind of stage, by which their curves are found."""


@dataclass(frozen=True)
class Row:
    """A leaderboard row: all seeds of a configuration, or one."""

    key: str
    label: str
    study: str
    rank: int
    family: str
    head: str | None
    values: Mapping[str, Number | str]
    """By column."""
    texts: Mapping[str, str]
    """``values`` as they are printed, by column."""
    members: Sequence[SeedRun]
    fronts: Sequence[str] = ()
    """Columns of the costs on whose Pareto front the row lies."""
    violations: Sequence[str] = ()


@dataclass(frozen=True)
class Board:
    """The rows of one protocol, best score first."""

    protocol_hash: str
    title: str
    protocol: Sequence[str]
    """In words, a sentence each."""
    settings: Mapping[str, Any]
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    headline: Mapping[str, Any]
    """:meth:`pipelines.results.answers.Headline.to_dict` with ``look`` in each family and the ``table`` of answers, or
    only ``sentences``."""


@dataclass(frozen=True)
class Curve:
    """What a training logged, thinned: one split's values of every term over its FLOPs."""

    flops: Sequence[float]
    terms: Mapping[str, Sequence[Number]]


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of one training."""

    kind: str
    """Kind of its stage."""
    model: str
    """Identity of the stage."""
    label: str
    """Empty where its row's will do."""
    train: Curve
    validation: Curve
    num_logged: int
    """Lines in the log, of which ``train`` shows a part."""


@dataclass(frozen=True)
class ProbePoint:
    """Share of tokens kept (``y``, with its standard error) when latents are disturbed by ``x``."""

    x: float
    y: float
    se: float
    text: str
    """``y`` and ``se`` as they are printed."""


@dataclass(frozen=True)
class Autoencoder:
    """A trained autoencoder and what its probes found."""

    model: str
    label: str
    chunk_size: int
    latent_size: int
    cells: Sequence[str]
    """Cells of the table of autoencoders, behind the label."""
    noise: Sequence[ProbePoint] = ()
    """By the standard deviation of the noise that is added to the posterior's mean; empty where it was not probed."""
    bits: Sequence[ProbePoint] = ()
    """By the bits to which each dimension of the mean is rounded."""
    kl: Sequence[float] = ()
    """Nats from the prior by dimension, largest first."""
    kl_texts: Sequence[str] = ()
    """``kl`` as it is printed."""


@dataclass(frozen=True)
class Text:
    """What a model wrote after a prompt."""

    temperature: float
    prompt: str
    text: str
    ended: bool
    num_tokens: int


@dataclass(frozen=True)
class Writing:
    """The texts of one language model."""

    model: str
    texts: Sequence[Text]


@dataclass(frozen=True)
class CheckpointCurve:
    """The models kept along one training, each with its score and its cross-entropy (nats per token)."""

    label: str
    family: str
    protocol_hash: str
    points: Sequence[Mapping[str, float]]
    texts: Sequence[Mapping[str, str]]
    """``training_flops``, ``brierlm`` and ``cross_entropy`` of every point as they are printed."""


@dataclass(frozen=True)
class Search:
    """The trials of a search by what was searched, and what mattered."""

    sampler: str
    objective: str
    direction: str
    parameters: Sequence[Mapping[str, Any]]
    """``name``, ``log``, ``numeric`` and ``label``."""
    points: Sequence[Mapping[str, Any]]
    """``trial``, ``label``, ``state``, ``value``, ``text`` (of the value) and ``at`` (by parameter)."""
    importance: Mapping[str, float]
    """By parameter, summing to 1; empty where ``why`` says so."""
    why: str = ""


@dataclass(frozen=True)
class UnrankedTrial:
    """A trial without a row, or one that is still open."""

    trial: int
    label: str
    state: str
    error: str
    settings: Mapping[str, Any]
    url: str | None


@dataclass(frozen=True)
class Expected:
    """Seconds that were foreseen and that it took; of a kind of stage, or of the whole run (``total``)."""

    kind: str
    estimated_s: float
    measured_s: float
    cells: Sequence[str] = ()
    """Kind in words, both times, and the error as a share; empty for a kind of under a second, which is not shown."""


@dataclass(frozen=True)
class Command:
    """A line for a shell, and what it does."""

    text: str
    purpose: str


@dataclass(frozen=True)
class StudyPart:
    """What concerns one study and not its rows."""

    name: str
    identity: str
    description: str
    configuration: str
    """Resolved YAML; addresses masked."""
    num_trials: int
    budget: str | None
    """What all language models were trained for equally, where the study says so."""
    finished: str | None
    """UTC date and time of its last stage."""
    url: str | None
    search: Search | None
    ended: Sequence[UnrankedTrial]
    commands: Sequence[Command]
    notes: Sequence[str]
    """What a repetition depends on beside the commands."""
    environment: Sequence[tuple[str, str]]
    stages: Sequence[Mapping[str, Any]]
    """Per kind: ``kind``, ``count`` and the ``cells`` of the table of work; each stage once."""
    estimates: Sequence[Expected] = ()
    """What was foreseen and what it took, in all and by kind of stage."""


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    title: str
    studies: Sequence[StudyPart]
    boards: Sequence[Board]
    families: Sequence[Mapping[str, Any]]
    """``name``, ``colour`` and ``marker`` by place in the palette: one look per family on the whole page."""
    curves: Sequence[TrainingCurves] = ()
    trainings: Sequence[tuple[str, str]] = ()
    """The kinds of stages that ``curves`` are of, each with what several are called."""
    autoencoders: Sequence[Autoencoder] = ()
    writings: Sequence[Writing] = ()
    kept: Sequence[CheckpointCurve] = ()
    left_out: Sequence[str] = ()
    """What did not fit, in words."""
    training_flops: str = ""
    """Training FLOPs of all stages of all studies, as printed."""
    wall_time: str = ""
    """Summed over these stages, as it is printed."""
    made_by: str = ""
    format: str = field(default=FORMAT, init=False)
    version: int = field(default=VERSION, init=False)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
