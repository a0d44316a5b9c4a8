"""The catalogue of the leaderboard's columns, as data: what each shows, how, and what it is called elsewhere.

The terminal's table, Markdown, the views of ``--format csv`` and ``json``, the report's table with its axes, and the
numbers of a run in MLflow are made from it: a new column is one entry here, or a measure that a kind of stages gives
to its row (:class:`pipelines.study.row.Measure`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError
from calm_bench.problems import field_paths
from calm_bench.registry import did_you_mean
from pipelines.results.column import Column, times_hundred
from pipelines.results.columns_of_rows import measures, searched, tasks

if TYPE_CHECKING:
    from pipelines.results.entry import Entry
    from pipelines.study.row import Better, Form

ON_THE_FRONT = "*"
ALIASES = {
    "label": "model",
    "chunk_size": "K",
    "score": "brierlm",
    "seed": "seeds",
    "protocol": "protocol_hash",
    "autoencoder": "autoencoder_accuracy",
    "time": "total_wall_time_s",
    "tokens/s": "tokens_per_second",
    "generated_tokens/s": "generated_tokens_per_second",
}


def _field(key: str) -> Callable[[Entry], float | str | None]:
    def read(entry: Entry) -> float | str | None:
        found: float | str | None = getattr(entry, key)
        return found

    return read


def _column(key: str, heading: str, form: Form, better: Better | None = None, **more: object) -> Column:
    """The column of the field ``key`` of a row."""
    return Column(key, heading, _field(key), form, better=better, **more)  # type: ignore[arg-type]


def _brier(n: int) -> Column:
    return Column(
        f"brier_{n}",
        f"Brier-{n}",
        lambda entry: entry.brier[n - 1],
        read_error=lambda entry: entry.brier_se[n - 1],
        better="high",
        # BrierLM is their geometric mean times 100.
        scale=times_hundred,
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
    Column("text", "Text", lambda entry: entry.text or None, "text", table="differing", page="differing"),
    Column("chunk_size", "K", lambda entry: entry.chunk_size if entry.has_chunk_size else None, "whole", page="usual"),
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
        scale=times_hundred,
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
    _column("role", "Role", "text"),
    Column("search", "Search", lambda entry: entry.stratum or None, "text"),
    _column("arithmetic", "Arithmetic", "text", table="differing", page="differing"),
    Column(
        "pretrained",
        "Trained\nelsewhere",
        lambda entry: entry.pretrained or None,
        "text",
        table="differing",
        page="differing",
    ),
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
    """Whether the rows have different values in ``column``; token models do not count where they can have none, nor do
    rows that do not say which text was scored."""
    if column.key == "seeds":
        return len({seed for entry in entries for seed in entry.seeds or [entry.seed]}) > 1
    found = {column.value(entry) for entry in entries}
    return len(found - {None} if column.calm_only or column.key == "text" else found) > 1


def find_column(name: str, columns: Mapping[str, Column]) -> Column:
    """The column called ``name``, whatever its case; a few short names are known too, and the ends of paths.

    Raises:
        ConfigurationError: there is none; names the nearest, or says of a setting that no search set it.
    """
    wanted = name.strip().casefold()
    names = {key.casefold(): column for key, column in columns.items()}
    names |= {alias.casefold(): columns[key] for alias, key in ALIASES.items() if key in columns}
    if wanted not in names:
        # Settings by the last parts of their paths, as labels name them.
        ending = [column for key, column in names.items() if "." in key and key.endswith(f".{wanted}")]
        if len(ending) == 1:
            return ending[0]
        if settings := _settings_called(wanted):
            raise ConfigurationError(
                f"there is no column {name.strip()!r}: no search behind these rows set {' or '.join(settings)}, and "
                "only settings that one sets are columns"
            )
        raise ConfigurationError(f"there is no column {name.strip()!r}{did_you_mean(name.strip(), sorted(columns))}")
    return names[wanted]


def _settings_called(name: str) -> list[str]:
    """Paths of an experiment's settings that end in ``name``, in lower case."""
    return [path for path in field_paths(Experiment) if f".{path}".casefold().endswith(f".{name}")]
