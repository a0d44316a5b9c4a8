"""The catalogue of the leaderboard's columns, as data: what each shows, how, and what it is called elsewhere.

The terminal's table, Markdown, the views of ``--format csv`` and ``json``, the report's table with its axes, and the
numbers of a run in MLflow are made from it: a new column is one entry here, or a measure that a kind of stages gives
to its row (:class:`pipelines.study.row.Measure`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.common.numbers import (
    MISSING,
    clipped_with_error,
    compact,
    duration,
    floored_percent,
    printable,
    scientific,
    with_error,
)

if TYPE_CHECKING:
    from evals.task_score import TaskScore
    from pipelines.results.entry import Entry, Scalar
    from pipelines.study.row import Better, Form

ON_THE_FRONT = "*"
PERCENTAGES = frozenset({"acc", "acc_norm", "best_acc", "exact_match"})
ALIASES = {
    "label": "model",
    "chunk_size": "K",
    "score": "brierlm",
    "seed": "seeds",
    "autoencoder": "autoencoder_accuracy",
    "time": "total_wall_time_s",
    "tokens/s": "tokens_per_second",
    "generated_tokens/s": "generated_tokens_per_second",
}
FORMS: Mapping[Form, Callable[[float], str]] = {
    "score": lambda value: f"{value:.2f}",
    "flops": scientific,
    "count": compact,
    "share": lambda percent: floored_percent(percent / 100),
    "duration": duration,
    "whole": lambda value: f"{value:.0f}",
    "setting": lambda value: f"{value:.6g}",
}
"""How a number is written that has no error."""

Place = Literal["usual", "differing", "asked"]
"""Where a column is shown unasked: ``usual`` everywhere; ``differing`` where rows differ in it; ``asked`` nowhere."""


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str
    """By which it is asked for; a field of the row where it shows one."""
    heading: str
    """In narrow tables, on several lines."""
    read: Callable[[Entry], float | str | None]
    """The value as files and MLflow hold it, None where a row has none."""
    form: Form = "score"
    read_error: Callable[[Entry], float | None] = lambda _: None
    """One standard error of what ``read`` gives."""
    better: Better | None = None
    scale: Callable[[Entry], float] = lambda _: 1.0
    """Times this a number is shown: 100 puts Brier-n on the scale of BrierLM, and shares in percent."""
    calm_only: bool = False
    """Nothing is shown for a token model, which has no autoencoder and no head."""
    clipped: bool = False
    """A value of 0 says that it could not be lower, and is shown as such."""
    table: Place = "asked"
    """In tables of text."""
    page: Place | None = None
    """On the report's page; None leaves it out there."""
    name: str = ""
    """On the page, where it is not the heading on one line."""
    unit: str = ""
    """Behind the name, on the page."""
    metric: str = ""
    """In MLflow, which has a chart for each name and a section for each prefix; empty for columns that are not sent."""
    error_metric: str = ""

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("-\n", "").replace("\n", " ")

    @property
    def is_text(self) -> bool:
        return self.form == "text"

    @property
    def justify(self) -> Literal["left", "right"]:
        return "left" if self.is_text and self.key != "seeds" else "right"

    def value(self, entry: Entry) -> float | str | None:
        """The value on the scale that is shown, by which rows are sorted and filtered; None where a row has none."""
        found = None if self.calm_only and entry.kind != "calm" else self.read(entry)
        return found if found is None or isinstance(found, str) else self.scale(entry) * float(found)

    def error(self, entry: Entry) -> float | None:
        """One standard error of :meth:`value`."""
        found = self.read_error(entry)
        return None if found is None else self.scale(entry) * found

    def cell(self, entry: Entry) -> str:
        """The value as text for people, with its error."""
        value, error = self.value(entry), self.error(entry)
        if value is None or isinstance(value, str):
            return printable(value or "") or MISSING
        if error is None:
            return FORMS[self.form](value)
        return clipped_with_error(value, error) if self.clipped else with_error(value, error)


def _field(key: str) -> Callable[[Entry], float | str | None]:
    def read(entry: Entry) -> float | str | None:
        found: float | str | None = getattr(entry, key)
        return found

    return read


def _column(key: str, heading: str, form: Form, better: Better | None = None, **more: object) -> Column:
    """The column of the field ``key`` of a row."""
    return Column(key, heading, _field(key), form, better=better, **more)  # type: ignore[arg-type]


def _hundred(_: Entry) -> float:
    return 100.0


def _brier(n: int) -> Column:
    return Column(
        f"brier_{n}",
        f"Brier-{n}",
        lambda entry: entry.brier[n - 1],
        read_error=lambda entry: entry.brier_se[n - 1],
        better="high",
        # BrierLM is their geometric mean times 100.
        scale=_hundred,
        table="usual",
        page="asked",
        unit="×100",  # noqa: RUF001
        metric=f"brier/brier_{n}",
        error_metric=f"error/brier_{n}",
    )


MODEL = Column("model", "Model", lambda entry: entry.label, "text", table="usual")
SCORE = Column(
    "brierlm",
    "BrierLM",
    lambda entry: entry.brierlm,
    read_error=lambda entry: entry.brierlm_se,
    better="high",
    clipped=True,
    table="usual",
    page="usual",
    metric="brierlm",
    error_metric="error/brierlm",
)
PARTS = [_brier(n) for n in range(1, 5)]
TRAINING = _column(
    "total_training_flops",
    "Training\nFLOPs",
    "flops",
    "low",
    table="usual",
    page="usual",
    unit="with autoencoder",
    metric="total_training_flops",
)
INFERENCE = _column(
    "inference_flops_per_token",
    "FLOPs /\ntoken",
    "flops",
    "low",
    table="usual",
    page="usual",
    name="Inference FLOPs",
    unit="per token",
    metric="inference_flops_per_token",
)
GENERATED = _column(
    "generated_tokens_per_second",
    "Tokens/s\ngenerated",
    "count",
    "high",
    page="usual",
    name="Tokens/s",
    unit="generated",
    metric="cost/generated_tokens_per_second",
)
BEFORE_TASKS = [
    MODEL,
    _column("study", "Study", "text", table="differing", page="differing"),
    Column(
        "variant",
        "Study's\nsettings",
        lambda entry: entry.variant or None,
        "text",
        table="differing",
        page="differing",
    ),
    Column("chunk_size", "K", _field("chunk_size"), "whole", page="usual"),
    Column("head", "Head", _field("head"), "text", calm_only=True, page="differing"),
    SCORE,
    *PARTS,
]
AFTER_TASKS = [
    Column(
        "autoencoder_accuracy",
        "Auto-\nencoder",
        _field("autoencoder_accuracy"),
        "share",
        better="high",
        scale=_hundred,
        table="usual",
        page="usual",
        unit="tokens kept",
        metric="autoencoder_accuracy",
    ),
    _column(
        "autoencoder_training_flops",
        "Auto-\nencoder's\nFLOPs",
        "flops",
        "low",
        calm_only=True,
        page="asked",
        metric="cost/autoencoder_training_flops",
    ),
    _column("parameters", "Para-\nmeters", "count", "low", table="usual", page="usual", metric="parameters"),
    _column(
        "autoencoder_parameters",
        "Auto-\nencoder's\nparameters",
        "count",
        "low",
        calm_only=True,
        metric="cost/autoencoder_parameters",
    ),
    TRAINING,
    _column(
        "training_flops",
        "Model's\nFLOPs",
        "flops",
        "low",
        page="asked",
        name="Training FLOPs, model alone",
        metric="cost/training_flops",
    ),
    INFERENCE,
    _column("tokens", "Tokens", "count", page="asked", unit="trained on", metric="cost/tokens"),
    _column(
        "tokens_per_second",
        "Tokens/s\ntrained",
        "count",
        "high",
        page="asked",
        name="Tokens/s",
        unit="in training",
        metric="cost/tokens_per_second",
    ),
    GENERATED,
    _column("generation", "Generation", "text"),
    _column(
        "total_wall_time_s",
        "Time",
        "duration",
        "low",
        table="usual",
        page="usual",
        metric="cost/total_wall_time_s",
    ),
    _column("wall_time_s", "Model's\ntime", "duration", "low", metric="cost/wall_time_s"),
    _column("decode_mode", "Decoding", "text"),
    _column("num_documents", "Docu-\nments", "whole", metric="count/documents"),
    _column("num_positions", "Posi-\ntions", "whole", metric="count/positions"),
    _column("num_samples", "Samples", "whole", metric="count/samples"),
    _column("estimator", "Estimator", "text"),
    _column("kind", "Kind", "text"),
    _column("budget", "Budget", "text", page="differing"),
    _column("configuration", "Configuration", "text"),
    _column("protocol_hash", "Protocol", "text"),
    _column("model_identity", "Identity", "text"),
    Column(
        "seeds",
        "Seed",
        lambda entry: ", ".join(map(str, entry.seeds or [entry.seed])),
        "text",
        table="differing",
        page="differing",
        name="Seeds",
    ),
]


def catalogue(entries: Iterable[Entry] = ()) -> list[Column]:
    """All columns that ``entries`` can have, in the order in which they stand side by side."""
    entries = list(entries)
    return [*BEFORE_TASKS, *tasks(entries), *measures(entries), *AFTER_TASKS, *searched(entries)]


def columns_of(entries: Sequence[Entry]) -> dict[str, Column]:
    """All columns that ``entries`` can have, by the key under which they are asked for; tasks by their names."""
    return {"K" if column.key == "chunk_size" else column.key: column for column in catalogue(entries)}


def usual_columns(entries: Sequence[Entry]) -> list[Column]:
    """What people compare models by: those that stand in every table, after those in which ``entries`` differ."""
    every = catalogue(entries)
    differing = [column for column in every if column.table == "differing" and differs(column, entries)]
    return [MODEL, *differing, *(column for column in every if column.table == "usual" and column is not MODEL)]


def differs(column: Column, entries: Iterable[Entry]) -> bool:
    """Whether the rows have different values in ``column``; token models do not count where they can have none."""
    if column.key == "seeds":
        return len({seed for entry in entries for seed in entry.seeds or [entry.seed]}) > 1
    found = {column.value(entry) for entry in entries}
    return len(found - {None} if column.calm_only else found) > 1


def find_column(name: str, columns: Mapping[str, Column]) -> Column:
    """The column called ``name``, whatever its case; a few short names are known too, and the ends of paths.

    Raises:
        ConfigurationError: there is none; names the nearest.
    """
    wanted = name.strip().casefold()
    names = {key.casefold(): column for key, column in columns.items()}
    names |= {alias.casefold(): columns[key] for alias, key in ALIASES.items() if key in columns}
    if wanted not in names:
        # Settings by the last parts of their paths, as labels name them.
        ending = [column for key, column in names.items() if "." in key and key.endswith(f".{wanted}")]
        if len(ending) == 1:
            return ending[0]
        raise ConfigurationError(f"there is no column {name.strip()!r}{did_you_mean(name.strip(), sorted(columns))}")
    return names[wanted]


def measures(entries: Iterable[Entry]) -> list[Column]:
    """A column for every measure that a row has, described by the first row that has it."""
    found = {measure.key: measure for entry in reversed(list(entries)) for measure in entry.measures}
    return [
        Column(
            key,
            printable(one.heading or key),
            lambda entry, key=key: _measured(entry, key, "value"),  # type: ignore[misc]
            one.form,
            lambda entry, key=key: _measured(entry, key, "standard_error"),  # type: ignore[misc]
            one.better,
            _hundred if one.form == "share" else lambda _: 1.0,
            table="usual",
            page="usual",
            metric=key,
            error_metric=f"error/{key}",
        )
        for key, one in sorted(found.items())
    ]


def _measured(entry: Entry, key: str, field: Literal["value", "standard_error"]) -> float | None:
    found: float | None = next((getattr(one, field) for one in entry.measures if one.key == key), None)
    return found


def searched(entries: Iterable[Entry]) -> list[Column]:
    """A column for every setting that a search set, by its dotted path; the model's label says most of them already."""
    found: dict[str, list[Scalar]] = {}
    for entry in entries:
        for path, value in entry.settings:
            found.setdefault(path, []).append(value)
    return [
        Column(
            path,
            printable(path.replace(".", ".\n")),
            lambda entry, path=path, as_text=as_text: _setting(entry, path, as_text),  # type: ignore[misc]
            "text" if as_text else "setting",
        )
        for path, values in sorted(found.items())
        for as_text in (not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values),)
    ]


def _setting(entry: Entry, path: str, as_text: bool) -> float | str | None:
    value = dict(entry.settings).get(path)
    if value is None or not as_text:
        return value
    # Truth as it is written on the command line.
    return str(value).lower() if isinstance(value, bool) else str(value)


def tasks(entries: Iterable[Entry]) -> list[Column]:
    """A column for every task that a row was scored on; a task under several protocols has a column for each."""
    scores = [score for entry in entries for score in entry.tasks]
    found = {(score.name, score.protocol_hash): score for score in scores}
    several = {name for name, count in Counter(name for name, _ in found).items() if count > 1}
    return [_task(*key, key[0] in several, found[key].higher_is_better) for key in sorted(found)]


def _task(name: str, protocol: str, is_one_of_several: bool, higher_is_better: bool | None) -> Column:
    def score(entry: Entry) -> TaskScore | None:
        return next((one for one in entry.tasks if (one.name, one.protocol_hash) == (name, protocol)), None)

    def scale(entry: Entry) -> float:
        found = score(entry)
        return 1.0 if found is None else _scale(found)

    metric = "_".join(name.split())
    return Column(
        name + (f" {protocol[:6]}" if is_one_of_several else ""),
        printable(name).replace(" ", "\n") + (f"\n{protocol[:6]}" if is_one_of_several else ""),
        lambda entry: getattr(score(entry), "value", None),
        read_error=lambda entry: getattr(score(entry), "standard_error", None),
        better="low" if higher_is_better is False else "high",
        scale=scale,
        table="usual",
        page="usual",
        name=printable(name) + (f" ({protocol[:6]})" if is_one_of_several else ""),
        unit="task",
        metric=f"task/{metric}",
        error_metric=f"error/{metric}",
    )


def task_value(score: TaskScore) -> str:
    """Accuracies times 100 as the leaderboard shows scores; other metrics as they are."""
    value = _scale(score) * score.value
    if score.standard_error is None:
        return FORMS["score"](value)
    return with_error(value, _scale(score) * score.standard_error)


def _scale(score: TaskScore) -> float:
    return 100.0 if score.metric in PERCENTAGES else 1.0
