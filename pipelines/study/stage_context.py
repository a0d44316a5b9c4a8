"""What a worker tells a stage about how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calm_bench.published_parts import PartMapper, in_this_process
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions


def never() -> bool:
    """The wish to stop of a stage that nobody stops."""
    return False


def no_folders() -> list[Path]:
    """The earlier stages of one that is told of none."""
    return []


@dataclass(frozen=True)
class StageContext:
    """How a stage is run, and nothing on which its result depends. A worker makes one for each stage.

    Where several workers share a training, each has one of its own, and
    :func:`calm_bench.training.parallel.current_workers` knows the others.
    """

    device: str = "cpu"
    """``cpu`` or ``cuda``. Of a worker ``auto`` may be asked, too: a GPU if it sees one."""
    stop: Callable[[], bool] = never
    """Turns true when the stage should save what it has and end. Cheap enough to be asked at every step."""
    training: TrainingOptions = DEFAULT_OPTIONS
    map_parts: PartMapper = in_this_process
    """Does the work that a stage has in parts: here, or by other workers where the stage is ``in_parts``."""
    earlier: Callable[[], Sequence[Path]] = no_folders
    """Folders of other finished stages that the same code made: what they have of the same input is taken over."""
