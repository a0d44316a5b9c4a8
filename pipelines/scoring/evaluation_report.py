"""All scores of one model, as one table for people and one object for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evals.clusters import MIN_DOCUMENTS
from pipelines.common.numbers import MISSING, printable
from pipelines.common.tables import plain_table

if TYPE_CHECKING:
    from rich.console import Console

    from evals.evaluate import BrierResult
    from evals.task_score import TaskScore
    from pipelines.results.entry import Entry


@dataclass(frozen=True)
class Row:
    """One number and all that is needed to judge it."""

    score: str
    of: str
    """What the score is measured by: the protocol of BrierLM, the metric and the scorer of a task."""
    value: float
    standard_error: float | None
    """Over documents (or windows, where documents are few)."""
    monte_carlo_error: float | None
    """How far other draws would move the value on the same text; None if it is not known apart."""
    num_documents: int
    num_samples: int | None
    protocol_hash: str
    is_task: bool = False
    """Whether it is a task of lm-eval, rather than BrierLM or a component of it."""

    @property
    def name(self) -> str:
        """Name of the metric in MLflow, without its section."""
        name = f"{self.score} {self.of}".replace("/", "_")
        if not self.is_task:
            name = name.lower().replace("-", "_")
        return "".join(character if character.isalnum() or character in "._-" else "_" for character in name)

    @property
    def metrics(self) -> dict[str, float]:
        """What MLflow holds, in the sections and units that rows of a study have there: scores first, then ``brier/``
        (at most 1, as its errors are), ``task/``, ``error/`` and ``count/``. BrierLM is in none, so that it stands at
        the top."""
        is_part = not self.is_task and self.score != "BrierLM"
        scale = 0.01 if is_part else 1.0
        section = "task/" if self.is_task else "brier/" if is_part else ""
        numbers = {
            f"{section}{self.name}": _scaled(self.value, scale),
            f"error/{self.name}": _scaled(self.standard_error, scale),
            f"error/{self.name}_draws": _scaled(self.monte_carlo_error, scale),
            f"count/{self.name}_documents": self.num_documents,
            f"count/{self.name}_samples": self.num_samples,
        }
        return {name: float(number) for name, number in numbers.items() if number is not None}


@dataclass(frozen=True)
class ScoredText:
    """The held-out text behind the scores."""

    source: str
    """As in ``corpus.source``."""
    split: str
    digest: str
    """Digest of the corpus."""
    tokenizer: str
    copied_documents: int = 0
    """Documents of the split that are exact copies of an earlier one there."""

    def __str__(self) -> str:
        return (
            f"{printable(self.source)}, split {self.split}, corpus {self.digest[:HASH_DIGITS]}, in tokens of "
            f"{printable(self.tokenizer)}"
        )


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of one model."""

    model: str
    """As it was named."""
    brierlm: Sequence[BrierResult]
    """One a protocol."""
    tasks: Sequence[TaskScore]
    texts: Sequence[dict[str, Any]] = ()
    left_out: Sequence[str] = ()
    """Protocols that this model or text does not allow, and why; values that are no numbers; prompts not read whole."""
    text: ScoredText | None = None
    """What BrierLM was measured on; tasks bring texts of their own."""
    entries: Sequence[Entry] = ()
    """BrierLM under each protocol as a row of a leaderboard, where that was wanted."""

    @property
    def rows(self) -> list[Row]:
        """BrierLM and its components under each protocol, then the tasks."""
        return [row for result in self.brierlm for row in _rows(result)] + [
            Row(
                score.task,
                f"{score.metric} {score.scorer}",
                score.value,
                score.standard_error,
                score.monte_carlo_error,
                score.num_documents,
                score.num_samples,
                score.protocol_hash,
                is_task=True,
            )
            for score in self.tasks
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; without the texts."""
        return {
            "model": self.model,
            "text": None if self.text is None else asdict(self.text),
            "brierlm": {protocol_name(result): result.to_dict() for result in self.brierlm},
            "tasks": [score.model_dump(mode="json") for score in self.tasks],
            "left_out": list(self.left_out),
        }


def print_report(report: EvaluationReport, console: Console) -> None:
    """The table, and below it what its columns mean."""
    from rich.text import Text

    table = plain_table()
    table.add_column("Score", overflow="fold", min_width=min(16, max(len(row.score) for row in report.rows)))
    table.add_column("By", overflow="fold", min_width=15)
    for heading in ("Value", "± text", "± draws", "Docs", "Draws"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Protocol", no_wrap=True)
    hashes: list[str] = []
    for row in report.rows:
        if hashes and row.protocol_hash != hashes[-1]:
            table.add_section()
        hashes.append(row.protocol_hash)
        cells = (
            printable(row.score),
            printable(row.of),
            _number(row.value),
            _number(row.standard_error),
            _number(row.monte_carlo_error),
            f"{row.num_documents:,}",
            MISSING if row.num_samples is None else f"{row.num_samples}",
            row.protocol_hash[:HASH_DIGITS],
        )
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row.score == "BrierLM" else "")
    console.print(table)
    console.print()
    if report.text is not None and report.brierlm:
        console.print(Text(f"Text of BrierLM: {report.text}"), soft_wrap=True)
    console.print(Text(CAPTION, style="dim"))
    if any(result.error_unit == "window" for result in report.brierlm):
        console.print(Text(FEW_DOCUMENTS, style="yellow"))
    for reason in report.left_out:
        console.print(Text(f"Beside the table: {reason}", style="yellow"), soft_wrap=True)


HASH_DIGITS = 7
"""Digits shown of a protocol's 16, so that a row fits on a line of 80."""
FEW_DOCUMENTS = (
    f"The text has fewer than {MIN_DOCUMENTS} documents, so ± text of BrierLM is over windows: it speaks of this text "
    "alone, and on other texts the score may differ by more. Score more documents for an error that holds for them."
)
CAPTION = (
    "BrierLM and Brier-n times 100. ± text: one standard error over documents, which holds the noise of the draws too; "
    "± draws: how far other draws would move the value on the same documents (0: nothing was drawn). Draws: samples at "
    "each position, or latents of each chunk. Scores compare where their protocols (first digits) are equal."
)


def protocol_name(result: BrierResult) -> str:
    """``matched`` or ``paper``; ``words`` or ``bytes`` where these were counted."""
    return str(getattr(result.protocol, "unit", result.protocol.name))


def _rows(result: BrierResult) -> list[Row]:
    errors = _sampling_errors(result)
    common = (result.num_documents, result.num_samples, result.protocol_hash)
    of = protocol_name(result)
    rows = [Row("BrierLM", of, result.brierlm, result.brierlm_se, errors[0], *common)]
    parts = zip(result.protocol.ngram_lengths, result.brier, result.brier_se, errors[1:], strict=True)
    for n, value, error, drawn in parts:
        rows.append(Row(f"Brier-{n}", of, 100 * value, 100 * error, drawn, *common))
    return rows


def _sampling_errors(result: BrierResult) -> list[float | None]:
    """Errors of BrierLM and its components, times 100: the noise of drawing (:mod:`evals.sampling_noise`), delta
    method."""
    import numpy as np

    count = len(result.brier)
    if result.noise is None or result.num_samples < 2:
        return [None] * (count + 1)
    covariance = result.noise.covariance(result.num_samples) / result.num_positions**2
    parts = 100 * np.sqrt(np.clip(np.diag(covariance), 0, None))
    components = np.array(result.brier)
    whole = None
    if (components > 0).all():
        gradient = result.brierlm / count / components
        whole = math.sqrt(max(0.0, float(gradient @ covariance @ gradient)))
    return [whole, *parts.tolist()]


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if abs(value) < 0.0001:
        return "<0.0001"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 1e6 else f"{value:.2e}"
