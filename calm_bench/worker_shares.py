"""Whether workers of one training can share its batches: the rule, without torch, so that a plan can refuse too."""

from __future__ import annotations

from calm_bench.config import Training
from calm_bench.errors import UsageError
from calm_bench.training_options import TrainingOptions
from calm_bench.worker_memory import rows_at_once

DRAW_BY_ROWS = "let the head draw by calm_bench.row_noise.draw and say so (Head.draws_by_rows)"


class CannotShare(UsageError, ValueError):
    """A step's batch cannot be divided among the workers; the message says what to change."""


def deals_whole(batch_size: int, parts: int, workers: int, by_rows: bool) -> bool:
    """Whether ``workers`` get the ``parts`` micro-batches of a step whole, the same number each; else the rows of each.

    Args:
        by_rows: whether a micro-batch may be divided: its noise can be drawn for some of its rows.

    Raises:
        CannotShare: neither goes.
    """
    if parts % workers == 0:
        return True
    if not by_rows:
        raise CannotShare(
            f"{workers} workers cannot share {parts} micro-batches whole, and this model's head draws noise that "
            f"cannot be shared by rows: set model.training.gradient_accumulation to a multiple of {workers}, or "
            f"{DRAW_BY_ROWS}"
        )
    rows = batch_size // parts
    if rows < workers:
        raise CannotShare(
            f"{workers} workers cannot share micro-batches of {rows} sequences: lower execution.workers or "
            "raise its batch_size (in model.training or autoencoder.training)"
        )
    return False


def check_micro_batch(training: Training, workers: int, options: TrainingOptions, by_rows: bool) -> None:
    """Refuse to compute a worker's rows in pieces where their noise cannot be drawn so.

    Raises:
        CannotShare: ``execution.micro_batch`` asks for it.
    """
    rows = rows_at_once(training, workers)
    if not by_rows and options.micro_batch != "auto" and options.micro_batch < rows:
        raise CannotShare(
            f"execution.micro_batch={options.micro_batch} would divide {rows} sequences, and this model's head "
            f"draws noise that cannot be shared by rows: set model.training.gradient_accumulation instead, or "
            f"{DRAW_BY_ROWS}"
        )
