"""A plan for people: the tree of stages, the trials and their prices."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.common.numbers import MISSING, compact, printable, scientific
from pipelines.common.tables import plain_table
from pipelines.planning.estimate import Estimate
from pipelines.planning.plan import Plan, PlannedStage, PlannedTrial, PriceRange
from pipelines.planning.pruner_notes import pruner_notes
from pipelines.planning.vocabulary_notes import vocabulary_notes
from pipelines.report.captions import budget_in_words
from pipelines.report.estimate_table import amount_of_bytes, long_duration, machine_lines, memory_of
from pipelines.study.price import Price
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS
from pipelines.study.strata import num_final_trials

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

PARTS = {
    "backbone": "Back-\nbone",
    "attention": "Atten-\ntion",
    "input": "Input",
    "embedding": "Embed-\nding",
    "head": "Head",
    "energy_score": "Energy\nscore",
    "autoencoder_context": "Context",
    "autoencoder_encoder": "Encoder",
    "autoencoder_decoder": "Decoder",
    "logits": "Logits",
}
STYLES = {"cached": "green", "begun": "yellow", "new": "cyan"}
SHOWN_TRIALS = 24
"""Trials of a long search that are printed; what follows them is summed up in a line."""


def print_plan(
    plan: Plan,
    console: Console,
    estimates: Sequence[Estimate] = (),
    limit: int | None = SHOWN_TRIALS,
    price_per_hour: float | None = None,
) -> None:
    """Print the stages as a tree, the trials with their prices by part, and the total.

    Args:
        estimates: what it takes on machines; the tree and the trials show the first.
        limit: how many trials, the first ones; None prints all.
        price_per_hour: of each machine, in any currency.
    """
    from rich.text import Text

    first = estimates[0] if estimates else None
    shown = plan.trials[:limit]
    for root in _trees(plan, first, {trial.number for trial in shown}):
        console.print(root)
    priced = [trial for trial in shown if trial.price is not None]
    if priced:
        console.print()
        console.print(_prices(priced, first))
        for part_table in _part_tables(priced):
            console.print()
            console.print(part_table)
    if len(shown) < len(plan.trials):
        console.print()
        console.print(Text(_rest(plan, len(shown)), style="dim"), soft_wrap=True)
    console.print()
    for trial in plan.trials:
        if trial.error is not None:
            console.print(
                Text(f"Trial {trial.number} ({printable(trial.label)}) cannot run: {trial.error}", style="red")
            )
    console.print(Text(summary(plan)), soft_wrap=True)
    for each in estimates:
        console.print()
        for line in machine_lines(each, price_per_hour):
            console.print(Text(line), soft_wrap=True)


def _part_tables(trials: list[PlannedTrial]) -> list[Table]:
    def count(part: float, total: float) -> str:
        return compact(part)

    def share(part: float, total: float) -> str:
        return f"{100 * part / total:.1f}%"

    tables = [_shares("Language model, parameters", trials, lambda price: price.model.parameters.parts, count)]
    if any(trial.price is not None and trial.price.autoencoder is not None for trial in trials):
        tables.append(
            _shares(
                "Autoencoder, parameters",
                [trial for trial in trials if trial.price is not None and trial.price.autoencoder is not None],
                lambda price: {} if price.autoencoder is None else price.autoencoder.parameters.parts,
                count,
            )
        )
    title = "Language model training, share of FLOPs"
    tables.append(_shares(title, trials, lambda price: price.model.flops.parts, share, with_samples=True))
    tables.append(
        _shares("Generation (sample T=1), share of FLOPs", trials, lambda price: price.inference.parts, share)
    )
    return tables


def summary(plan: Plan) -> str:
    """The totals in words."""
    counts = {state: sum(planned.state == state for planned in plan.stages) for state in STYLES}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = []
    if plan.sampled is None:
        trials = f"{len(plan.trials)} {'trial' if len(plan.trials) == 1 else 'trials'}"
        lines.append(
            f"{trials}, {len(plan.stages)} stages ({states}). Training FLOPs: {scientific(plan.flops)} in all, "
            f"{scientific(plan.flops_to_run)} still to run."
        )
    else:
        prices = plan.sampled
        final = num_final_trials(plan.study)
        fresh = f", {final} of them the best ones again with fresh seeds" if final else ""
        lines.append(
            f"{prices.num_trials} trials, chosen by {plan.study.search.sampler} as the study runs{fresh}, to "
            f"{' and '.join(map(str, plan.study.search.objectives))}; above, what they vary. Training FLOPs of one "
            f"trial: {scientific(prices.lowest)} to {scientific(prices.highest)}, median "
            f"{scientific(prices.median)}; of all, shared autoencoders once, about {scientific(prices.total)}"
            f"{_still_to_run(prices)}."
        )
    if plan.budget is not None:
        lines.append(f"Budget of each language model: {budget_in_words(str(plan.budget))}.")
    lines += [*vocabulary_notes(plan), *pruner_notes(plan)]
    lines.append(
        "Training FLOPs include autoencoders, each once. FLOPs / token: inference, one sample at temperature 1."
    )
    return "\n".join(lines)


def _still_to_run(prices: PriceRange) -> str:
    if prices.num_to_run == prices.num_trials:
        return ""
    if not prices.num_to_run:
        return "; nothing of it is still to run"
    trials = f"{prices.num_to_run} {'trial' if prices.num_to_run == 1 else 'trials'}"
    return f"; {trials} and about {scientific(prices.flops_to_run)} of it still to run"


def _rest(plan: Plan, num_shown: int) -> str:
    """The trials that are not printed, in a line."""
    rest = plan.trials[num_shown:]
    prices = sorted(trial.price.training_flops for trial in rest if trial.price is not None)
    flops = f", training FLOPs {scientific(prices[0])} to {scientific(prices[-1])} each" if prices else ""
    return f"... and {len(rest):,} more trials{flops} (--all prints every trial, --json too)"


def _trees(plan: Plan, estimate: Estimate | None, shown: Container[int]) -> list[Tree]:
    """Each stage of the trials ``shown`` below the last of its inputs: the one that is made for it."""
    from rich.text import Text
    from rich.tree import Tree

    roots: list[Tree] = []
    nodes: dict[Stage, Tree] = {}
    for planned in plan.stages:
        if not any(number in shown for number in planned.trials):
            continue
        text = Text.assemble(
            printable(str(planned.stage)),
            "  ",
            (planned.state, STYLES[planned.state]),
            (_details(planned, plan, estimate), "dim"),
        )
        above = _parent(planned.stage)
        if above is None:
            nodes[planned.stage] = Tree(text)
            roots.append(nodes[planned.stage])
        else:
            nodes[planned.stage] = nodes[above].add(text)
    return roots


def _parent(stage: Stage) -> Stage | None:
    inputs = list(stage.inputs.values())
    return inputs[-1] if inputs else None


def _details(planned: PlannedStage, plan: Plan, estimate: Estimate | None) -> str:
    details = [f"{scientific(planned.flops)} FLOPs"] if planned.flops else []
    cost = None if estimate is None else estimate.costs.get(planned.stage)
    if cost is not None and planned.state != "cached":
        details += ["time not known" if cost.seconds is None else long_duration(cost.seconds)]
        details += [] if cost.memory is None else [amount_of_bytes(cost.memory.total)]
    if planned.shared:
        details.append(f"shared by {len(planned.trials)} trials")
    elif STAGE_KINDS.get(planned.stage.kind).section == "model":
        details.append(f"trial {printable(plan.trials[planned.trials[0]].label)}")
    return "".join(f", {detail}" for detail in [*details, planned.stage.identity[:8]])


def _prices(trials: list[PlannedTrial], estimate: Estimate | None) -> Table:
    headings = ["Trial", "Para-\nmeters", "Steps", "Tokens", "Model\nFLOPs", "Autoenc.\nFLOPs", "FLOPs /\ntoken"]
    table = _table(*headings, *([] if estimate is None else ["Memory", "Time"]))
    for trial in trials:
        price = trial.price
        assert price is not None
        cells = [
            _name(trial),
            compact(price.model.parameters.total),
            f"{price.model.steps:,}",
            compact(price.model.tokens),
            scientific(price.model.flops.total),
            MISSING if price.autoencoder is None else scientific(price.autoencoder.flops.total),
            scientific(price.inference.total),
        ]
        if estimate is not None and trial.graph is not None:
            known = [stage for stage in trial.graph.stages if stage in estimate.costs]
            cells.append(amount_of_bytes(max((memory_of(estimate, stage) for stage in known), default=0.0)))
            cells.append(long_duration(sum(estimate.costs[stage].seconds or 0.0 for stage in known)))
        table.add_row(*cells)
    return table


def _shares(
    title: str,
    trials: list[PlannedTrial],
    parts_of: Callable[[Price], Mapping[str, float]],
    show: Callable[[float, float], str],
    with_samples: bool = False,
) -> Table:
    """A table of parts, a column each; ``show`` gives a part's cell from it and the total."""
    found = [parts_of(trial.price) for trial in trials if trial.price is not None]
    shown = [name for name in PARTS if any(name in parts for parts in found)]
    heads = with_samples and "head" in shown
    table = _table("Trial", *(PARTS[name] for name in shown), *(["Head\nx N"] if heads else []))
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    for trial, parts in zip(trials, found, strict=True):
        total = sum(parts.values())
        cells = [show(parts[name], total) if name in parts else MISSING for name in shown]
        table.add_row(_name(trial), *cells, *([_head_samples(trial)] if heads else []))
    return table


def _head_samples(trial: PlannedTrial) -> str:
    """N, how often the head runs at a position in training."""
    if trial.experiment is None or not trial.experiment.model.family.uses("head"):
        return MISSING
    samples = getattr(trial.experiment.model.head, "num_samples", None)
    return MISSING if samples is None else f"x {samples}"


def _table(first: str, *others: str) -> Table:

    table = plain_table()
    table.add_column(first, overflow="fold", max_width=28)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _name(trial: PlannedTrial) -> str:
    from rich.markup import escape

    return escape(printable(trial.label))
