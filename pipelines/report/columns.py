"""The leaderboard's columns as the page shows them, and a row's values in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.common.sanitize import legible
from pipelines.report.curves import rounded
from pipelines.report.data import Column, Number
from pipelines.results.columns import PERCENTAGES
from pipelines.results.entry import Entry

LONGEST_LABEL = 200
_DIGITS = 6


def columns_for(entries: Sequence[Entry]) -> list[Column]:
    """Those in which some row has a value; columns that all rows share alike are left for the reader to ask for."""
    several_studies = len({entry.study for entry in entries}) > 1
    several_heads = len({entry.head for entry in entries if entry.head}) > 1
    several_seeds = len({seed for entry in entries for seed in entry.seeds or [entry.seed]}) > 1
    calm = any(entry.kind == "calm" for entry in entries)
    columns = [
        Column("study", "Study", form="text", shown=several_studies, axis=False),
        Column("chunk_size", "K", form="whole", log=True),
        Column("head", "Head", form="text", shown=several_heads, axis=False),
        Column("brierlm", "BrierLM", error="brierlm_se", better="high"),
        *(
            Column(f"brier_{n}", f"Brier-{n}", "×100", error=f"brier_{n}_se", better="high", shown=False)  # noqa: RUF001
            for n in range(1, 5)
        ),
        *_tasks(entries),
        Column("total_training_flops", "Training FLOPs", "with autoencoder", None, "low", True, "flops"),
        Column("training_flops", "Training FLOPs, model alone", "", None, "low", True, "flops", shown=False),
        Column("inference_flops_per_token", "Inference FLOPs", "per token", None, "low", True, "flops"),
        Column("parameters", "Parameters", "", None, "low", True, "count"),
        Column("tokens", "Tokens", "trained on", None, None, True, "count", shown=False),
        Column("tokens_per_second", "Tokens/s", "in training", None, "high", True, "count", shown=False),
        *_generation(entries),
        Column("total_wall_time_s", "Time", "", None, "low", True, "duration"),
        Column("seeds", "Seeds", form="text", shown=several_seeds, axis=False),
    ]
    budgets = {entry.budget for entry in entries}
    if budgets != {None}:
        columns.insert(-1, Column("budget", "Budget", form="text", shown=len(budgets) > 1, axis=False))
    if calm:
        place = next(index for index, column in enumerate(columns) if column.key == "parameters")
        columns[place:place] = [
            Column("autoencoder_accuracy", "Autoencoder", "tokens kept", better="high", form="share"),
            Column("autoencoder_training_flops", "Autoencoder's FLOPs", "", None, "low", True, "flops", shown=False),
        ]
    return columns


def values_of(entry: Entry, columns: Iterable[Column]) -> dict[str, Number | str]:
    """By column and by column of errors; Brier-n and accuracies times 100, as BrierLM is."""
    values: dict[str, Number | str] = {
        "study": legible(entry.study, LONGEST_LABEL),
        "head": legible(entry.head or "", LONGEST_LABEL),
        "budget": legible(entry.budget or "", LONGEST_LABEL),
        "seeds": ", ".join(map(str, entry.seeds or [entry.seed])),
        "brierlm_se": rounded(entry.brierlm_se, _DIGITS),
    }
    for n in range(4):
        values[f"brier_{n + 1}"] = rounded(100 * entry.brier[n], _DIGITS)
        values[f"brier_{n + 1}_se"] = rounded(100 * entry.brier_se[n], _DIGITS)
    for score in entry.tasks:
        scale = 100.0 if score.metric in PERCENTAGES else 1.0
        key = _task_key(score.name, score.protocol_hash)
        values[key] = rounded(scale * score.value, _DIGITS)
        if score.standard_error is not None:
            values[f"{key}_se"] = rounded(scale * score.standard_error, _DIGITS)
    for column in columns:
        if column.key not in values:
            found = getattr(entry, column.key, None)
            # An autoencoder's price is nothing and not unknown for a token model, but a log axis has no place for it.
            values[column.key] = None if found is None else rounded(float(found), _DIGITS)
    if entry.kind == "token":
        values["head"] = ""
        values["autoencoder_training_flops"] = None
    return values


def _generation(entries: Sequence[Entry]) -> list[Column]:
    if all(entry.generated_tokens_per_second is None for entry in entries):
        return []
    return [Column("generated_tokens_per_second", "Tokens/s", "generated", None, "high", True, "count")]


def _tasks(entries: Sequence[Entry]) -> list[Column]:
    found = sorted({(score.name, score.protocol_hash) for entry in entries for score in entry.tasks})
    names = [name for name, _ in found]
    columns = []
    for name, protocol in found:
        title = legible(name, LONGEST_LABEL) + (f" ({protocol[:6]})" if names.count(name) > 1 else "")
        key = _task_key(name, protocol)
        columns.append(Column(key, title, "task", error=f"{key}_se", better="high"))
    return columns


def _task_key(name: str, protocol: str) -> str:
    return f"task {name} {protocol}"
