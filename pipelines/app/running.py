"""Everything one ``calm-bench run`` does: trials, display, tracking, leaderboard, report."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import remove_unfinished
from calm_bench.caches import settle_caches
from calm_bench.proxies import settle_proxies
from pipelines.app.run_context import RunContext
from pipelines.common.canvas import warm_up
from pipelines.execution.events import Event, Listener, Listeners, StageProgress
from pipelines.planning.forecast import Forecast, Outcome
from pipelines.planning.stage_costs import assumed_speed
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.report.trajectory_files import write_trajectories
from pipelines.results.final_rows import rows_of
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.trajectories import summary, trajectories_of
from pipelines.search.drive import StudyInterrupted, run_study
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.place import keeping_store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.tracking.listener import TrackingListener

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.execution.executor import Executor
    from pipelines.monitor.display import Progress
    from pipelines.study.trial import TrialOutcome


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
    """The leaderboard in MLflow, or the address of its database; ``None`` where tracking is off."""
    correlations: tuple[str, ...] = ()
    """How BrierLM goes with cross-entropy along the trainings, a line each, where the study asks for it."""
    expected: Outcome | None = None
    """Estimate against outcome, where stages were run."""
    page: Path | None = None
    """The report, unless it could not be written."""

    @property
    def failed(self) -> tuple[TrialOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state in ("failed", "invalid"))

    def to_dict(self) -> dict[str, Any]:
        """The run for programs: what came of every trial, the rows, and where all of it is."""
        return {
            "folder": str(self.folder),
            "trials": [
                {
                    "number": outcome.number,
                    "label": outcome.label,
                    "state": outcome.state,
                    "error": outcome.error,
                    "violations": list(outcome.violations),
                }
                for outcome in self.outcomes
            ],
            "leaderboard": json.loads(self.leaderboard.to_json()),
            "files": {suffix: str(path) for suffix, path in self.files.items()},
            "report": None if self.page is None else str(self.page),
            "mlflow": self.mlflow,
            "correlations": list(self.correlations),
        }


def run_and_report(
    study: Study,
    console: Console,
    retry_failed: bool = False,
    forecast: Forecast | None = None,
    show: Callable[[Leaderboard], None] = lambda leaderboard: None,
    context: RunContext | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run ``study`` in its store, show progress on ``console``, and write leaderboard and report beside the results.

    Args:
        forecast: what the run is expected to take, to be compared with what it takes.
        show: given the leaderboard as soon as there is one: nobody should wait for pictures or MLflow to see it.
        progress: how it is shown; unset means as ``console`` allows.
        context: where it runs, if it is opened already; closed at the end.

    Raises:
        StudyInterrupted: it was asked to stop; the same command goes on.
        ExecutorError, CorpusError, ConfigurationError: it cannot run as described.
        FolderGone: somebody moved or removed the store meanwhile.
    """
    settle_caches()
    settle_proxies()
    context = context or RunContext.of(study)
    with keeping_store(context.store):
        return _run_and_report(study, console, retry_failed, forecast, show, context, progress)


def _run_and_report(
    study: Study,
    console: Console,
    retry_failed: bool,
    forecast: Forecast | None,
    show: Callable[[Leaderboard], None],
    context: RunContext,
    progress: Progress | None,
) -> Report:
    from pipelines.monitor.display import progress_for
    from pipelines.report.page import write_run_report

    store, executor = context.store, context.executor
    progress = progress or progress_for(console)
    drawing, closing = _Drawing(), _Closing(executor)
    tracking = None
    try:
        # Asked once: that of a corpus in files is a digest of all of them.
        corpus_identity = corpus_identity_in(store, progress.message)
        folder = study_folder(study, store, corpus_identity)
        listeners: list[Listener] = [progress]
        if study.tracking.enabled:
            tracking = TrackingListener(study.tracking, store, folder, notify=progress.message)
            listeners.append(tracking)
        if forecast is not None:
            listeners.append(forecast)
        with progress:
            outcomes = run_study(
                study,
                store,
                executor,
                Listeners([*listeners, drawing]),
                retry_failed=retry_failed,
                announce=progress.stopping,
                speed_of=assumed_speed if forecast is None else forecast.speed_of,
            )
        closing.start()
        leaderboard = Leaderboard(rows_of(outcomes, study))
        show(leaderboard)
        drawing.join()
        files = write_leaderboard(leaderboard, folder, progress.message)
        trajectories = trajectories_of(outcomes)
        write_trajectories(trajectories, folder, progress.message)
        if forecast is not None:
            # Now too, for those who read the study's folder before the run has ended.
            forecast.finish(folder)
        if tracking is not None:
            # The report is attached to the study's run with the other files of its folder.
            write_run_report(store, folder, progress.message)
    finally:
        closing.finish()
        if tracking is not None:
            tracking.close(_patience_s(sys.exception()))
    expected = None if forecast is None else forecast.finish(folder)
    remove_unfinished(folder)
    # Where the study is in MLflow, once more: only now are all addresses in it known, and how long the run took.
    page = write_run_report(store, folder, progress.message)
    store.studies.save(folder.name)
    address = None if tracking is None else tracking.page or tracking.address
    found = tuple(summary(trajectories))
    return Report(tuple(outcomes), leaderboard, folder, files, address, found, expected, page)


def _patience_s(error: BaseException | None) -> float:
    """How long MLflow is waited for: not at all after a second Ctrl-C, and a stop has seconds before it is a kill."""
    if isinstance(error, KeyboardInterrupt):
        return 0.0
    return 5.0 if isinstance(error, StudyInterrupted) else 60.0


class _Closing:
    """Ends the executor beside the tables and pictures: Ray takes a second or two, and only waits in them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, now that no stage runs any more."""
        self._thread = threading.Thread(target=self._executor.close, name="closing", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Return when all processes of the executor have ended."""
        if self._thread is not None:
            self._thread.join()
        self._executor.close()


class _Drawing:
    """Gets ready to draw and to report when the first training is under way, while this process has nothing else to
    do."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def handle(self, event: Event) -> None:
        if self._thread is None and isinstance(event, StageProgress):
            self._thread = threading.Thread(target=self._get_ready, name="drawing", daemon=True)
            self._thread.start()

    def _get_ready(self) -> None:
        import pipelines.report.page  # noqa: F401

        warm_up()

    def join(self) -> None:
        """Wait for it: two threads must not draw at once."""
        if self._thread is not None:
            self._thread.join()
