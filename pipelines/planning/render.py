"""A plan for people: the tree of stages, the trials and their prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipelines.leaderboard.numbers import MISSING, compact, printable, scientific
from pipelines.planning.plan import Plan, PlannedStage, PlannedTrial
from pipelines.planning.price import Price
from pipelines.stages.stage import Stage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

GPU_FLOPS_PER_SECOND = 4e14
"""40 % of the bf16 peak of an H100, a usual yield in training."""
GPU_WORTH_NAMING = 1e16
"""Training FLOPs from which a price in GPU hours says more than a price in FLOPs."""

PARTS = {
    "backbone": "Back-\nbone",
    "attention": "Atten-\ntion",
    "input": "Input",
    "head": "Head",
    "energy_score": "Energy\nscore",
    "autoencoder_encoder": "Encoder",
    "autoencoder_decoder": "Decoder",
    "logits": "Logits",
}
STYLES = {"cached": "green", "begun": "yellow", "new": "cyan"}


def print_plan(plan: Plan, console: Console) -> None:
    """Print the stages as a tree, the trials with their prices by part, and the total."""
    from rich.text import Text

    for root in _trees(plan):
        console.print(root)
    priced = [trial for trial in plan.trials if trial.price is not None]
    if priced:
        console.print()
        console.print(_prices(priced))
        console.print()
        console.print(_shares("Language model training, share of FLOPs", priced, lambda price: price.model.flops.parts))
        console.print()
        console.print(_shares("Generation (sample T=1), share of FLOPs", priced, lambda price: price.inference.parts))
    console.print()
    for trial in plan.trials:
        if trial.error is not None:
            console.print(
                Text(f"Trial {trial.number} ({printable(trial.label)}) cannot run: {trial.error}", style="red")
            )
    console.print(Text(summary(plan)), soft_wrap=True)


def summary(plan: Plan) -> str:
    """The totals in words."""
    counts = {state: sum(planned.state == state for planned in plan.stages) for state in STYLES}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = []
    if plan.sampled is None:
        trials = f"{len(plan.trials)} {'trial' if len(plan.trials) == 1 else 'trials'}"
        lines.append(
            f"{trials}, {len(plan.stages)} stages ({states}). Training FLOPs: {scientific(plan.flops)} in all, "
            f"{scientific(plan.flops_to_run)} still to run{_gpu_hours(plan.flops_to_run)}."
        )
    else:
        prices = plan.sampled
        lines.append(
            f"{prices.num_trials} trials, chosen by {plan.study.search.sampler} as the study runs; above, the base "
            f"experiment they vary. Training FLOPs of one trial: {scientific(prices.lowest)} to "
            f"{scientific(prices.highest)}, median {scientific(prices.median)}; of all, autoencoders not shared, about "
            f"{scientific(prices.num_trials * prices.median)}{_gpu_hours(prices.num_trials * prices.median)}."
        )
    lines.append(
        "Training FLOPs include autoencoders, each once. FLOPs / token: inference, one sample at temperature 1. "
        "Evaluation is not priced."
    )
    return "\n".join(lines)


def _gpu_hours(flops: float) -> str:
    if flops < GPU_WORTH_NAMING:
        return ""
    hours = flops / GPU_FLOPS_PER_SECOND / 3600
    return f" (about {compact(hours)} H100 hours at {scientific(GPU_FLOPS_PER_SECOND)} FLOP/s)"


def _trees(plan: Plan) -> list[Tree]:
    """Each stage below the last of its inputs: the one that is made for it."""
    from rich.text import Text
    from rich.tree import Tree

    roots: list[Tree] = []
    nodes: dict[Stage, Tree] = {}
    for planned in plan.stages:
        text = Text.assemble(
            printable(str(planned.stage)),
            "  ",
            (planned.state, STYLES[planned.state]),
            (_details(planned, plan), "dim"),
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


def _details(planned: PlannedStage, plan: Plan) -> str:
    details = [f"{scientific(planned.flops)} FLOPs"] if planned.flops else []
    if planned.shared:
        details.append(f"shared by {len(planned.trials)} trials")
    elif planned.stage.kind == "language_model":
        details.append(f"trial {printable(plan.trials[planned.trials[0]].label)}")
    return "".join(f", {detail}" for detail in [*details, planned.stage.identity[:8]])


def _prices(trials: list[PlannedTrial]) -> Table:
    table = _table("Trial", "Para-\nmeters", "Steps", "Tokens", "Model\nFLOPs", "Autoenc.\nFLOPs", "FLOPs /\ntoken")
    for trial in trials:
        price = trial.price
        assert price is not None
        table.add_row(
            _name(trial),
            compact(price.model.parameters.total),
            f"{price.model.steps:,}",
            compact(price.model.tokens),
            scientific(price.model.flops.total),
            MISSING if price.autoencoder is None else scientific(price.autoencoder.flops.total),
            scientific(price.inference.total),
        )
    return table


def _shares(title: str, trials: list[PlannedTrial], parts_of: Callable[[Price], Mapping[str, float]]) -> Table:
    found = [parts_of(trial.price) for trial in trials if trial.price is not None]
    shown = [name for name in PARTS if any(name in parts for parts in found)]
    table = _table("Trial", *(PARTS[name] for name in shown))
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    for trial, parts in zip(trials, found, strict=True):
        total = sum(parts.values())
        cells = [f"{100 * parts[name] / total:.1f}%" if name in parts else MISSING for name in shown]
        table.add_row(_name(trial), *cells)
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold", max_width=28)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _name(trial: PlannedTrial) -> str:
    from rich.markup import escape

    return escape(printable(trial.label))
