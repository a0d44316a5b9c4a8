"""One row for all seeds of a configuration, with both kinds of variance.

The seeds of a configuration are scored on the same documents, so what makes a document easy or hard for all of them
does not shrink by having more of them; what is each seed's own does, its draws and its strengths. With S seeds whose
scores vary by s^2 and errors e_i over documents the pooled error is ``sqrt(r mean e_i^2 + s^2 / S)``, r being the share
of their mean's variance over documents in the mean of theirs (:mod:`evals.replicates`), at most 1. It is 1 where that
is not known, as of Brier-n and tasks. As s^2 / S holds what is each seed's own once more, this errs on the large side.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, variance
from typing import Any

from evals.task_score import TaskScore
from pipelines.results.entry import Entry
from pipelines.results.pairing import common_share, mean_of
from pipelines.study.row import Measure

_MEANS = (
    "autoencoder_accuracy",
    "training_flops",
    "autoencoder_training_flops",
    "total_training_flops",
    "inference_flops_per_token",
    "wall_time_s",
    "total_wall_time_s",
    "tokens",
    "tokens_per_second",
)


def pooled(entries: Iterable[Entry]) -> list[Entry]:
    """Rows of one protocol and one configuration become one; a single seed's row stays as it is.

    The order of the rows does not matter. A model that several studies share counts once.
    """
    groups: dict[tuple[str, str], dict[int, Entry]] = defaultdict(dict)
    alone = []
    for entry in sorted(entries, key=_in_order):
        if entry.configuration and not entry.seeds:
            groups[entry.protocol_hash, entry.configuration].setdefault(entry.seed, entry)
        else:
            alone.append(entry)
    together = [_pool([rows[seed] for seed in sorted(rows)]) for rows in groups.values()]
    return sorted(alone + together, key=_in_order)


def _in_order(entry: Entry) -> tuple[str, int, str]:
    return entry.study, entry.trial, entry.model_dump_json()


def _pool(rows: Sequence[Entry]) -> Entry:
    first = rows[0]
    if len(rows) == 1:
        return first
    replicates = [row.replicates if row.brierlm > 0 else "" for row in rows]
    score, error, seed_error = joint([(row.brierlm, row.brierlm_se) for row in rows], replicates)
    parts = [joint([(row.brier[n], row.brier_se[n]) for row in rows]) for n in range(4)]
    means = {
        name: fmean(getattr(row, name) for row in rows)
        for name in _MEANS
        if all(getattr(row, name) is not None for row in rows)
    }
    return Entry.model_validate(
        first.model_dump()
        | means
        | {
            "label": label_without_seed(first),
            "settings": tuple(pair for pair in first.settings if all(pair in row.settings for row in rows)),
            "study_identity": _common(row.study_identity for row in rows),
            "variant": _common(row.variant for row in rows),
            "seeds": tuple(row.seed for row in rows),
            "seed_error": seed_error,
            "brierlm": score,
            "brierlm_se": error,
            "replicates": mean_of(replicates),
            "model_identities": tuple(row.model_identity for row in rows),
            "brier": tuple(part[0] for part in parts),
            "brier_se": tuple(part[1] for part in parts),
            "tasks": tuple(_tasks(rows)),
            "measures": tuple(_measures(rows)),
            **_speed(rows),
        }
    )


def joint(scores: Sequence[tuple[float, float]], replicates: Sequence[str] = ()) -> tuple[float, float, float]:
    """Mean, its error, and the part of the error that is due to seeds.

    Args:
        scores: of each seed, with its error over documents.
        replicates: of each score, where it has them (:class:`~pipelines.results.entry.Entry`).
    """
    seed_error = math.sqrt(variance(value for value, _ in scores) / len(scores))
    documents = common_share(replicates) * _root_mean_square(e for _, e in scores)
    return fmean(value for value, _ in scores), math.hypot(documents, seed_error), seed_error


def _root_mean_square(values: Iterable[float]) -> float:
    return math.sqrt(fmean(value**2 for value in values))


def _tasks(rows: Sequence[Entry]) -> Iterable[TaskScore]:
    """Tasks that every seed was scored on in the same way."""
    by_row = [{(score.name, score.protocol_hash): score for score in row.tasks} for row in rows]
    for key, first in by_row[0].items():
        if not all(key in scores for scores in by_row):
            continue
        scores = [found[key] for found in by_row]
        errors = [score.standard_error for score in scores if score.standard_error is not None]
        drawn = [score.monte_carlo_error for score in scores if score.monte_carlo_error is not None]
        known = len(errors) == len(rows)
        value, error, _ = joint([(score.value, score.standard_error or 0.0) for score in scores])
        update = {
            "value": value,
            "standard_error": error if known else None,
            # Seeds draw independently of each other, so this part does shrink.
            "monte_carlo_error": _root_mean_square(drawn) / math.sqrt(len(rows)) if len(drawn) == len(rows) else None,
        }
        yield first.model_copy(update=update)


def _measures(rows: Sequence[Entry]) -> Iterable[Measure]:
    """Measures that every seed has."""
    for first in rows[0].measures:
        found = [one for row in rows for one in row.measures if one.key == first.key]
        if len(found) == len(rows):
            value, error, _ = joint([(one.value, one.standard_error or 0.0) for one in found])
            known = all(one.standard_error is not None for one in found)
            yield first.model_copy(update={"value": value, "standard_error": error if known else None})


def _speed(rows: Sequence[Entry]) -> dict[str, Any]:
    """Speeds of writing have a mean where they were measured alike."""
    speeds = [row.generated_tokens_per_second for row in rows if row.generated_tokens_per_second is not None]
    alike = len({row.generation for row in rows}) == 1 and len(speeds) == len(rows)
    return {
        "generated_tokens_per_second": fmean(speeds) if alike else None,
        "generation": rows[0].generation if alike else "",
    }


def _common(texts: Iterable[str]) -> str:
    """The text that all rows share, or none."""
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def label_without_seed(entry: Entry) -> str:
    """The label without the part that names the seed, where the seed was searched over."""
    parts = [part for part in entry.label.split(", ") if part != f"seed={entry.seed}"]
    return ", ".join(parts) or entry.family
