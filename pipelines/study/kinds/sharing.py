"""Whether the workers of a study can share a training, found out before anything runs."""

from __future__ import annotations

from collections.abc import Callable

from calm_bench.config import Training
from calm_bench.worker_memory import rows_at_once
from calm_bench.worker_shares import CannotShare, check_micro_batch, deals_whole
from pipelines.study.config import Execution


def unshareable(training: Training, execution: Execution, by_rows: Callable[[], bool]) -> str | None:
    """Why the workers of ``execution`` cannot share the batches of ``training``; None if they can.

    Args:
        by_rows: whether rows of a micro-batch can be computed apart. Asked only where it matters, since it may import
            a user's class, and torch with it.
    """
    workers, options = execution.workers, execution.training
    parts, rows = training.gradient_accumulation, rows_at_once(training, workers)
    in_pieces = options.micro_batch != "auto" and options.micro_batch < rows
    matters = in_pieces or (parts % workers and training.batch_size // parts >= workers)
    drawn = by_rows() if matters else True
    try:
        deals_whole(training.batch_size, parts, workers, drawn)
        check_micro_batch(training, workers, options, drawn)
    except CannotShare as error:
        return str(error)
    return None
