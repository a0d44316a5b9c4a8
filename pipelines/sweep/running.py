"""Everything one ``calm-bench run`` does: trials, display, mirror, leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.study_config import Study
from pipelines.engine.events import Listener, Listeners
from pipelines.engine.executor import make_executor
from pipelines.leaderboard.entry import entry_from
from pipelines.leaderboard.leaderboard import Leaderboard, write_leaderboard
from pipelines.leaderboard.trajectories import summary, trajectories_of, write_trajectories
from pipelines.mirror.tracking import MlflowMirror
from pipelines.store.store import Store
from pipelines.sweep.study import run_study, study_folder, study_identity

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.sweep.trial import TrialOutcome


@dataclass(frozen=True)
class Report:
    """What a run left behind."""

    outcomes: tuple[TrialOutcome, ...]
    leaderboard: Leaderboard
    folder: Path
    """The study's folder in the store."""
    files: dict[str, Path]
    """The leaderboard by file suffix: json, md, csv, png, svg."""
    mlflow: str | None
    """Address of the mirror without credentials, or ``None`` where tracking is off."""
    correlations: tuple[str, ...] = ()
    """How BrierLM goes with cross-entropy along the trainings, a line each, where the study asks for it."""

    @property
    def failed(self) -> tuple[TrialOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state in ("failed", "invalid"))


def run_and_report(study: Study, console: Console, retry_failed: bool = False) -> Report:
    """Run ``study`` in its store, show progress on ``console``, and write the leaderboard beside the results.

    Raises:
        StudyInterrupted: it was asked to stop; the same command goes on.
        ExecutorError, CorpusError, ConfigurationError: it cannot run as described.
    """
    from pipelines.leaderboard.render import markdown
    from pipelines.progress import progress_for

    store = Store(Path(study.execution.store).expanduser())
    progress = progress_for(console)
    mirror = None
    if study.tracking.enabled:
        mirror = MlflowMirror(study.tracking, store.root, study, study_identity(study), notify=progress.message)
    executor = make_executor(study.execution, store)
    try:
        with progress:
            listeners: list[Listener] = [progress] if mirror is None else [progress, mirror]
            outcomes = run_study(study, store, executor, Listeners(listeners), retry_failed=retry_failed)
        leaderboard = Leaderboard(entry_from(outcome, study) for outcome in outcomes if outcome.state == "complete")
        files = write_leaderboard(leaderboard, study_folder(study, store))
        trajectories = trajectories_of(outcomes)
        pictures = write_trajectories(trajectories, study_folder(study, store))
        if mirror is not None:
            mirror.publish(leaderboard, markdown(leaderboard), [*files.values(), *pictures])
    finally:
        executor.close()
        if mirror is not None:
            mirror.close()
    address = None if mirror is None else mirror.address
    found = tuple(summary(trajectories))
    return Report(tuple(outcomes), leaderboard, study_folder(study, store), files, address, found)
