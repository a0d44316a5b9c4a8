"""The columns of the leaderboard: what each shows, what it is sorted and filtered by, and which direction is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.common.numbers import MISSING, compact, duration, floored_percent, printable, scientific, with_error

if TYPE_CHECKING:
    from evals.task_score import TaskScore
    from pipelines.results.entry import Entry

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


def _no_error(_: Entry) -> float | None:
    return None


@dataclass(frozen=True)
class Column:
    """What a column shows of a row. ``value`` is on the scale that is shown, None where a row has none."""

    key: str
    """By which it is asked for; a field of the row where it shows one."""
    heading: str
    value: Callable[[Entry], float | str | None]
    cell: Callable[[Entry], str]
    error: Callable[[Entry], float | None] = _no_error
    """One standard error of ``value``."""
    better: Literal["high", "low"] | None = None
    justify: Literal["left", "right"] = "right"

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("-\n", "").replace("\n", " ")

    def width(self, entries: Iterable[Entry], marked: bool = False) -> int:
        """In characters, with room for a mark behind the value if ``marked``."""
        texts = [*self.heading.split("\n"), *(self.cell(entry) + ON_THE_FRONT * marked for entry in entries)]
        return max(map(len, texts))


def _text(key: str, heading: str, value: Callable[[Entry], str]) -> Column:
    return Column(key, heading, value, lambda entry: printable(value(entry)) or MISSING, justify="left")


def _number(
    key: str,
    heading: str,
    shown: Callable[[float], str],
    better: Literal["high", "low"] | None = None,
    empty: Callable[[Entry], bool] = lambda _: False,
) -> Column:
    def value(entry: Entry) -> float | None:
        found: float | None = getattr(entry, key)
        return None if found is None or empty(entry) else float(found)

    def cell(entry: Entry) -> str:
        found = value(entry)
        return MISSING if found is None else shown(found)

    return Column(key, heading, value, cell, better=better)


def _part(n: int) -> Column:
    # Times 100, so that they stand on the scale of BrierLM, which is their geometric mean times 100.
    return Column(
        f"brier_{n}",
        f"Brier-{n}",
        lambda entry: 100 * entry.brier[n - 1],
        lambda entry: with_error(100 * entry.brier[n - 1], 100 * entry.brier_se[n - 1]),
        lambda entry: 100 * entry.brier_se[n - 1],
        "high",
    )


def _is_token(entry: Entry) -> bool:
    return entry.kind == "token"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _seeds(entry: Entry) -> str:
    return ", ".join(map(str, entry.seeds or [entry.seed]))


MODEL = _text("model", "Model", lambda entry: entry.label)
STUDY = _text("study", "Study", lambda entry: entry.study)
SEEDS = Column("seeds", "Seed", _seeds, _seeds)
SCORE = Column(
    "brierlm",
    "BrierLM",
    lambda entry: entry.brierlm,
    lambda entry: with_error(entry.brierlm, entry.brierlm_se),
    lambda entry: entry.brierlm_se,
    "high",
)
PARTS = [_part(n) for n in range(1, 5)]
TRAINING = _number("total_training_flops", "Training\nFLOPs", scientific, "low")
INFERENCE = _number("inference_flops_per_token", "FLOPs /\ntoken", scientific, "low")
COSTS = [
    Column(
        "autoencoder_accuracy",
        "Auto-\nencoder",
        lambda entry: None if entry.autoencoder_accuracy is None else 100 * entry.autoencoder_accuracy,
        lambda entry: floored_percent(entry.autoencoder_accuracy),
        better="high",
    ),
    _number("parameters", "Para-\nmeters", compact, "low"),
    TRAINING,
    INFERENCE,
    _number("total_wall_time_s", "Time", duration, "low"),
]
GENERATED = _number("generated_tokens_per_second", "Tokens/s\ngenerated", compact, "high")
ON_DEMAND = [
    _text("kind", "Kind", lambda entry: entry.kind),
    _number("chunk_size", "K", _whole),
    _text("head", "Head", lambda entry: entry.head or ""),
    _number("training_flops", "Model's\nFLOPs", scientific, "low"),
    _number("autoencoder_training_flops", "Auto-\nencoder's\nFLOPs", scientific, "low", _is_token),
    _number("autoencoder_parameters", "Auto-\nencoder's\nparameters", compact, "low", _is_token),
    _text("decode_mode", "Decoding", lambda entry: entry.decode_mode),
    _number("tokens", "Tokens", compact),
    _number("tokens_per_second", "Tokens/s\ntrained", compact, "high"),
    GENERATED,
    _text("generation", "Generation", lambda entry: entry.generation),
    _number("wall_time_s", "Model's\ntime", duration, "low"),
    _number("num_documents", "Docu-\nments", _whole),
    _number("num_positions", "Posi-\ntions", _whole),
    _number("num_samples", "Samples", _whole),
    _text("estimator", "Estimator", lambda entry: entry.estimator),
    _text("budget", "Budget", lambda entry: entry.budget or ""),
    _text("configuration", "Configuration", lambda entry: entry.configuration),
    _text("protocol_hash", "Protocol", lambda entry: entry.protocol_hash),
    _text("model_identity", "Identity", lambda entry: entry.model_identity),
]


def columns_of(entries: Sequence[Entry]) -> dict[str, Column]:
    """All columns that ``entries`` can have, by key; tasks by their names."""
    columns = [MODEL, STUDY, SEEDS, SCORE, *PARTS, *tasks(entries), *COSTS, *ON_DEMAND]
    by_key = {column.key: column for column in columns}
    by_key["K"] = by_key.pop("chunk_size")
    return by_key


def find_column(name: str, columns: Mapping[str, Column]) -> Column:
    """The column called ``name``, whatever its case; a few short names are known too.

    Raises:
        ConfigurationError: there is none; names the nearest.
    """
    wanted = name.strip().casefold()
    names = {key.casefold(): column for key, column in columns.items()}
    names |= {alias.casefold(): columns[key] for alias, key in ALIASES.items() if key in columns}
    if wanted not in names:
        raise ConfigurationError(f"there is no column {name.strip()!r}{did_you_mean(name.strip(), sorted(columns))}")
    return names[wanted]


def distinguishing(entries: Sequence[Entry]) -> list[Column]:
    """Columns that are needed only where the rows differ in them."""
    several = [
        (STUDY, len({entry.study for entry in entries})),
        (SEEDS, len({seed for entry in entries for seed in entry.seeds or [entry.seed]})),
    ]
    return [column for column, count in several if count > 1]


def tasks(entries: Iterable[Entry]) -> list[Column]:
    """A column for every task that a row was scored on; a task under several protocols has a column for each."""
    scores = [score for entry in entries for score in entry.tasks]
    found = {(score.name, score.protocol_hash): score for score in scores}
    several = {name for name, count in Counter(name for name, _ in found).items() if count > 1}
    return [_task(*key, key[0] in several, found[key].higher_is_better) for key in sorted(found)]


def _task(name: str, protocol: str, is_one_of_several: bool, higher_is_better: bool | None) -> Column:
    def score(entry: Entry) -> TaskScore | None:
        return next((one for one in entry.tasks if (one.name, one.protocol_hash) == (name, protocol)), None)

    def scaled(entry: Entry, field: Literal["value", "standard_error"]) -> float | None:
        found = score(entry)
        number: float | None = getattr(found, field, None)
        return None if found is None or number is None else _scale(found) * number

    def cell(entry: Entry) -> str:
        found = score(entry)
        return MISSING if found is None else task_value(found)

    return Column(
        name + (f" {protocol[:6]}" if is_one_of_several else ""),
        printable(name).replace(" ", "\n") + (f"\n{protocol[:6]}" if is_one_of_several else ""),
        lambda entry: scaled(entry, "value"),
        cell,
        lambda entry: scaled(entry, "standard_error"),
        "low" if higher_is_better is False else "high",
    )


def task_value(score: TaskScore) -> str:
    """Accuracies times 100 as the leaderboard shows scores; other metrics as they are."""
    if score.standard_error is None:
        return f"{_scale(score) * score.value:.2f}"
    return with_error(_scale(score) * score.value, _scale(score) * score.standard_error)


def _scale(score: TaskScore) -> float:
    return 100.0 if score.metric in PERCENTAGES else 1.0
