"""What a run does between its last stage and its end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.app.run_context import RunContext
from pipelines.app.running import run_and_report
from pipelines.execution.local_executor import LocalExecutor
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study

SETTINGS = (
    "corpus.source=markov",
    "corpus.markov.num_documents=10",
    # Too long for the text: nothing is trained.
    "evaluation.context_length=8192",
    "tracking.enabled=false",
    "execution.backend=local",
)


class Slow(LocalExecutor):
    """Ends when it is let."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.begun, self.let, self.ended = threading.Event(), threading.Event(), threading.Event()

    def close(self) -> None:
        self.begun.set()
        assert self.let.wait(300)
        super().close()
        self.ended.set()


@pytest.mark.slow
def test_the_executor_ends_while_the_board_is_shown_and_before_the_run_does(tmp_path: Path) -> None:
    study = resolve_study("smoke", [*SETTINGS, f"execution.store={tmp_path}"])
    store = Store(tmp_path)
    executor = Slow(store)
    seen: list[tuple[bool, bool]] = []

    def show(board: Leaderboard) -> None:
        seen.append((executor.begun.wait(300), executor.ended.is_set()))
        executor.let.set()

    report = run_and_report(study, Console(quiet=True), show=show, context=RunContext(store, executor))
    assert seen == [(True, False)]
    assert executor.ended.is_set()
    assert report.page is not None


@pytest.mark.slow
def test_the_executor_ends_where_the_board_cannot_be_shown(tmp_path: Path) -> None:
    study = resolve_study("smoke", [*SETTINGS, f"execution.store={tmp_path}"])
    store = Store(tmp_path)
    executor = Slow(store)
    executor.let.set()

    def show(board: Leaderboard) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_and_report(study, Console(quiet=True), show=show, context=RunContext(store, executor))
    assert executor.ended.is_set()
