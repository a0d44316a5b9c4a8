"""A study on a screen: the same for the terminal that runs it and for one that watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import time
from typing import TYPE_CHECKING

from pipelines.common.numbers import compact, duration, scientific
from pipelines.common.sanitize import without_controls
from pipelines.monitor.tracker import time_left

if TYPE_CHECKING:
    from rich.text import Text

    from pipelines.monitor.view import StageView, StudyView, TrialView

HEIGHT = 24
"""Lines of the terminal that everybody has."""
_BAR = 20
_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "complete": "green",
    "failed": "bold red",
    "invalid": "bold red",
    "pruned": "yellow",
}

Cell = tuple[str, str]
"""Text and style."""


def panel(view: StudyView, width: int, height: int = HEIGHT, note: str = "") -> Text:
    """Counts, the budget, the best so far, what runs, and how the trials stand, in fewer than ``height`` lines.

    Lines are put together here: a table of rich costs several times as much, every second of a study of days.

    Args:
        width: columns; no line is longer, and columns of the tables that do not fit are left out.
        note: shown last, where the one who draws has something to say of the whole. It alone is never cut off.
    """
    from rich.text import Text

    lines = list(_head(view, width))
    # One line less than there are, for the cursor; a study of many stages need not fill a wall.
    free = max(8, min(height, 2 * HEIGHT) - 1 - len(lines) - (-(-len(note) // width)))
    trials = view.trials
    if view.running:
        # Each table has a blank line before it and a heading.
        kept_for_trials = 2 + min(len(trials), free // 2 - 2) if trials else 0
        most = max(1, free - kept_for_trials - 2)
        shown = view.running if len(view.running) <= most else view.running[: most - 1]
        lines += [[], *_stage_lines(shown, width, view.num_trials > len(trials))]
        free -= 2 + len(shown)
        if (others := len(view.running) - len(shown)) > 0:
            lines.append([(f"and {others} more", "dim")])
            free -= 1
    if trials and free > 2:
        lines += [[], *_trial_lines(trials[-(free - 2) :], width, len(trials) == view.num_trials)]
    text = Text("\n").join(_fitted(line, width) for line in lines)
    return text.append(f"\n{without_controls(note)}", "bold yellow") if note else text


def _head(view: StudyView, width: int) -> Iterator[list[Cell]]:
    trials = [f"{view.complete} of {view.num_trials} trials done"]
    trials += [f"{view.failed} failed"] if view.failed else []
    trials += [f"{view.pruned} pruned"] if view.pruned else []
    trials += [f"{view.cached} done before"] if view.cached else []
    times = [f"{duration(view.elapsed_s)} so far", *filter(None, [time_left(view)])]
    is_narrow = len(view.study) + len("; ".join([*trials, *times])) + 2 > width
    yield [
        (view.study, "bold"),
        (f": {', '.join(trials)}", ""),
        *([] if is_narrow else [(f"; {', '.join(times)}", "")]),
    ]
    if is_narrow:
        yield [(", ".join(times), "")]
    names = {"running": "running", "queued": "waiting", "failed": "failed", "done": "done", "cached": "from the store"}
    stages = [f"{view.stages[state]} {name}" for state, name in names.items() if view.stages.get(state)]
    stages += [f"{view.retries} tried again"] if view.retries else []
    if stages:
        yield [(f"Stages: {', '.join(stages)}", "")]
    if view.flops_to_do:
        yield _budget(view, width)
    if view.best:
        yield [("Best so far: ", ""), (view.best, "green")]
    if view.stopping:
        yield [(f"Stopping ({view.stopping}): running stages save a checkpoint and end", "yellow")]


def _budget(view: StudyView, width: int) -> list[Cell]:
    share = min(1.0, view.flops / view.flops_to_do)
    told = f"{100 * share:.0f} %, {scientific(view.flops)} of {scientific(view.flops_to_do)}"
    if view.num_known < view.num_trials:
        told += f" for the first {view.num_known} trials"
    if view.flops_cached:
        told += f"; {scientific(view.flops_cached)} more from the store"
    bar = [*_bar(share), (" ", "")] if width >= 90 else []
    return [("Training FLOPs: ", ""), *bar, (told, "")]


def _stage_lines(stages: Sequence[StageView], width: int, with_trial: bool) -> Iterator[list[Cell]]:
    # Told where hosts are to be told apart, and where numbers come late.
    with_host, with_age = any(stage.host for stage in stages), any(stage.as_of is not None for stage in stages)
    heading = ["Running", *(["Trial"] if with_trial else []), "Steps", "Loss", "Tokens/s", "Left"]
    heading += [*(["As of"] if with_age else []), *(["Where"] if with_host else [])]
    rows = []
    for stage in stages:
        again = f" (try {stage.retries + 1})" if stage.retries else ""
        speed = "" if stage.mb_per_second is None else f", {stage.mb_per_second:.3g} MB/s"
        others = f" +{stage.num_trials - 1}" if stage.num_trials > 1 else ""
        rows.append(
            [
                stage.label + speed + again,
                *(["" if stage.trial is None else f"{stage.trial}{others}"] if with_trial else []),
                f"{stage.step:,}/{stage.total_steps:,}" if stage.total_steps else "",
                "" if stage.loss is None else f"{stage.loss:.3f}",
                "" if stage.tokens_per_second is None else compact(stage.tokens_per_second),
                "" if stage.remaining_s is None else duration(stage.remaining_s),
                *(
                    ["" if stage.as_of is None else f"{duration(max(0.0, time() - stage.as_of))} ago"]
                    if with_age
                    else []
                ),
                *([_where(stage)] if with_host else []),
            ]
        )
    # These columns give way first on a narrow screen.
    for name, columns in (
        ("Where", 100),
        ("Tokens/s", 80 if with_age else 64),
        ("Loss", 48),
        ("As of", 48),
        ("Trial", 40),
    ):
        if width < columns and name in heading:
            index = heading.index(name)
            heading = [*heading[:index], *heading[index + 1 :]]
            rows = [[*row[:index], *row[index + 1 :]] for row in rows]
    widths = _widths([heading, *rows])
    others_width = sum(widths[1:]) + 2 * (len(widths) - 1)
    with_bar = width >= widths[0] + others_width + _BAR + 2
    widths[0] = max(8, min(widths[0], width - others_width))
    for number, row in enumerate([heading, *rows]):
        style = "dim" if number == 0 else ""
        cells: list[Cell] = [(_left(row[0], widths[0]), style)]
        if with_bar:
            stage = stages[number - 1]
            share = stage.step / stage.total_steps if stage.total_steps else 0.0
            cells += [("  ", ""), *([(" " * _BAR, "")] if number == 0 else _bar(share))]
        for text, size in zip(row[1:], widths[1:], strict=True):
            cells.append((f"  {text:>{size}}", style))
        yield cells


def _where(stage: StageView) -> str:
    if not stage.host:
        return ""
    return stage.host if stage.since is None else f"{stage.host}, for {duration(max(0.0, time() - stage.since))}"


def _trial_lines(trials: Sequence[TrialView], width: int, is_all: bool) -> Iterator[list[Cell]]:
    rows = [["Trial" if is_all else "Ended last", "State", "Stages"]]
    for trial in trials:
        done = f"{trial.stages_done}/{trial.num_stages}" if trial.num_stages else ""
        rows.append([f"{trial.number} {trial.label}", trial.state, done])
    widths = _widths(rows)
    widths[0] = min(widths[0], max(12, width // 3))
    for row, seen in zip(rows, [None, *trials], strict=True):
        style = "dim" if seen is None else ""
        yield [
            (_left(row[0], widths[0]), style),
            (f"  {row[1]:<{widths[1]}}", style if seen is None else _STYLES[seen.state]),
            *([(f"  {row[2]:>{widths[2]}}", style)] if width >= 64 else []),
            ("" if seen is None else f"  {seen.note}", ""),
        ]


def _bar(share: float) -> list[Cell]:
    full = round(_BAR * min(1.0, max(0.0, share)))
    return [("━" * full, "magenta"), ("─" * (_BAR - full), "bright_black")]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _left(text: str, width: int) -> str:
    """``text`` in exactly ``width`` columns; what does not fit ends in an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…"


def _fitted(cells: Sequence[Cell], width: int) -> Text:
    """One line of at most ``width`` columns."""
    from rich.text import Text

    line = Text(no_wrap=True)
    for text, style in cells:
        line.append(without_controls(text), style or None)
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line
