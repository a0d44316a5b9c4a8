"""What stands below a leaderboard: what its numbers mean and what they were measured with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evals.task_score import EXACT
from pipelines.common.numbers import MISSING, compact, duration, printable, scientific
from pipelines.results.columns import GENERATED, INFERENCE, ON_THE_FRONT, PARTS, SCORE, TRAINING
from pipelines.results.columns_of_rows import tasks
from pipelines.results.error_unit import copies_among, errors_over, few_documents
from pipelines.results.leaderboard import Group
from pipelines.results.unlike_arithmetic import unlike_arithmetic
from pipelines.results.view import View
from pipelines.study.equal_budget import parse_budget

if TYPE_CHECKING:
    from pipelines.results.entry import Entry

MOST_NAMES = 3
"""Rows that a sentence names."""


def caption(group: Group, view: View | None = None) -> str:
    """What the numbers of the shown columns mean and what they were measured with."""
    view = view or View()
    entries = group.entries
    columns = view.shown_columns(group)
    keys = {column.key for column in columns}
    seeds = sorted({seed for entry in entries for seed in entry.seeds or [entry.seed]})
    modes = sorted({printable(entry.decode_mode) for entry in entries})
    inference = f"FLOPs / token: inference by {' or '.join(modes)}. "
    return (
        f"{_scores_caption(keys)}± one standard error over {errors_over(entries)}: "
        f"{_spread([entry.num_positions for entry in entries])} positions "
        f"in {_spread([entry.num_documents for entry in entries])} documents{_text_caption(entries)}, "
        f"{_spread([entry.num_samples for entry in entries])} samples at each; protocol {group.protocol_hash}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. "
        f"{sentence(few_documents(entries))}"
        f"{sentence(copies_among(entries))}"
        f"{sentence(unlike_arithmetic(entries))}"
        f"{_clipped_caption(entries) if SCORE.key in keys else ''}"
        f"{_ranks_caption(group)}"
        f"{_autoencoder_caption(keys)}"
        f"{_budget_caption(entries)}"
        f"{inference if INFERENCE.key in keys else ''}"
        f"{_unpriced_caption(entries) if any(column.form == 'flops' for column in columns) else ''}"
        f"{generation_caption(entries) if GENERATED in columns else ''}"
        f"{_tasks_caption(entries) if keys & {column.key for column in tasks(entries)} else ''}"
        f"{_measures_caption(entries, keys)}"
        f"{_front_caption(view) if keys & view.fronts(group).keys() else ''}"
    ).rstrip()


def _scores_caption(keys: set[str]) -> str:
    """The scale of the scores among the columns ``keys``; other columns carry their unit in their headings."""
    names = ["BrierLM"] if SCORE.key in keys else []
    names += ["Brier-n"] if keys & {part.key for part in PARTS} else []
    return f"{' and '.join(names)} times 100, higher is better, " if names else "Scores "


def _autoencoder_caption(keys: set[str]) -> str:
    """What belongs to the autoencoder among the columns ``keys``."""
    told = "Autoencoder: held-out tokens it reconstructs. " if "autoencoder_accuracy" in keys else ""
    whole = ["FLOPs"] if TRAINING.key in keys else []
    whole += ["time"] if "total_wall_time_s" in keys else []
    if not whole:
        return told
    verb = "includes" if whole == ["time"] else "include"
    return f"{told}Training {' and '.join(whole)} {verb} the autoencoder's. "


def _text_caption(entries: tuple[Entry, ...]) -> str:
    """The text that was scored, where the rows say so; rows of one protocol have one."""
    texts = sorted({printable(entry.text) for entry in entries if entry.text})
    return f" ({' or '.join(texts)})" if texts else ""


def _unpriced_caption(entries: tuple[Entry, ...]) -> str:
    """Rows whose FLOPs are not known, which are on no front; nothing where there is none."""
    names = [printable(entry.label) for entry in entries if entry.compute is None]
    if not names:
        return ""
    told = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    return f"What {told} cost is not all known ({MISSING}): without FLOPs a row is on no Pareto front of them. "


def sentence(text: str) -> str:
    """``text`` with room behind it, where there is any."""
    return f"{text} " if text else ""


def _ranks_caption(group: Group) -> str:
    """By which test rows share a rank, and what it leaves out."""
    told = "Rows share a rank where their errors leave the difference open (5 % level), "
    if len(group.entries) < 2 or group.differences.all_paired:
        told += "with documents paired. "
    elif group.differences.any_paired:
        told += "with documents paired where both rows hold their scores, else with the two errors summed. "
    else:
        told += (
            "the two errors summed, since documents are not paired where a row holds no scores of them or its BrierLM "
            "is 0; calm-bench compare pairs, and is sharper. "
        )
    if not all(entry.seeds for entry in group.entries):
        told += "A row of one seed is one trained model: what another seed would score is not in its error. "
    return told


def _front_caption(view: View) -> str:
    if view.pareto is None:
        told = f"{ON_THE_FRONT} on the Pareto front: no row scores as high for less."
    else:
        x, y = view.pareto
        told = f"{ON_THE_FRONT} on the Pareto front of {x.title} and {y.title}."
    if view.within_errors:
        told += " Beaten is only what another row beats beyond the errors."
    return told


def _budget_caption(entries: tuple[Entry, ...]) -> str:
    """What was equal among the language models; nothing where no row's study says so."""
    budgets = list(dict.fromkeys(entry.budget for entry in entries if entry.training_flops is not None))
    if budgets in ([], [None]):
        return ""
    told = [budget_in_words(budget) for budget in budgets if budget is not None]
    told += ["some as configured"] if None in budgets else []
    return f"Budget of a language model's training: {', '.join(told)}. "


def budget_in_words(text: str) -> str:
    """``equal-flops 3.5e12`` as ``equal FLOPs (3.50e12, autoencoders not counted)``; what is no budget, as it is."""
    try:
        budget = parse_budget(text)
    except ValueError:
        return printable(text)
    amount = budget.amount
    match budget.equal:
        case "flops":
            return "equal FLOPs (" + ("" if amount is None else f"{scientific(amount)}, ") + "autoencoders not counted)"
        case "total-flops":
            return "equal FLOPs with its autoencoder's" + ("" if amount is None else f" ({scientific(amount)})")
        case "tokens":
            return "equal tokens" + ("" if amount is None else f" ({compact(amount)})")
    return "equal wall time" + ("" if amount is None else f" ({duration(amount)})") + ", as measured where it began"


def generation_caption(entries: Iterable[Entry]) -> str:
    """How the speeds of writing were measured; nothing where there are none."""
    ways = sorted({printable(entry.generation) for entry in entries if entry.generation})
    if not ways:
        return ""
    return (
        f"Tokens/s generated: measured with {' or '.join(ways)}, after the prompts were read, beside whatever else the "
        "machine did. "
    )


def _tasks_caption(entries: tuple[Entry, ...]) -> str:
    scores = [score for entry in entries for score in entry.tasks]
    if not scores:
        return ""
    scorers = sorted({printable(score.scorer) for score in scores} - {EXACT})
    compared = f"; without a likelihood, choices are compared by {' or '.join(scorers)}" if scorers else ""
    return (
        f"Accuracies times 100, ± one standard error over {_spread([score.num_documents for score in scores])} "
        f"documents{compared}. {_truncated_caption(entries)}"
    )


def _truncated_caption(entries: tuple[Entry, ...]) -> str:
    """Tasks of which prompts did not fit; each with the most that a row lost."""
    most: dict[str, int] = {}
    for score in (score for entry in entries for score in entry.tasks if score.num_truncated):
        most[score.task] = max(score.num_truncated, most.get(score.task, 0))
    if not most:
        return ""
    told = ", ".join(f"{count:,} of {printable(task)}" for task, count in sorted(most.items()))
    return f"Prompts longer than what is read lost their beginning: {told}. "


def _measures_caption(entries: tuple[Entry, ...], keys: set[str]) -> str:
    """What the measures among the columns ``keys`` are."""
    found = {measure.key: measure for entry in reversed(entries) for measure in entry.measures if measure.description}
    titles = {key: printable(" ".join((one.heading or key).split())) for key, one in found.items()}
    return "".join(f"{titles[key]}: {printable(one.description)} " for key, one in found.items() if key in keys)


def _clipped_caption(entries: tuple[Entry, ...]) -> str:
    """What a score of 0 means; nothing where there is none."""
    if all(entry.brierlm for entry in entries):
        return ""
    return "0 (clipped): BrierLM is 0 where a Brier-n is not positive. "


def _spread(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
