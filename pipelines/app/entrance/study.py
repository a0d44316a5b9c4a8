"""A study from Python: what it costs, its run, its results as objects and as a data frame."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.trusted_code import targets_in, trust_code
from calm_bench.working_directory import check_working_directory
from pipelines.study import config

if TYPE_CHECKING:
    import pandas
    from rich.console import Console

    from pipelines.app.entrance.model import Model
    from pipelines.planning.plan import Plan
    from pipelines.results.entry import Entry
    from pipelines.results.leaderboard import Leaderboard

WIDTH = 120
"""Characters of a table in a notebook."""


class Study:
    """A search over experiments: trainings, their scores, and the leaderboard of them."""

    def __init__(self, configuration: config.Study) -> None:
        trust_code(*targets_in(configuration.model_dump(mode="json")))
        self.config = configuration
        """The resolved configuration, checked and frozen."""

    @classmethod
    def from_yaml(cls, name_or_path: str | Path, *overrides: str, store: str | Path | None = None) -> Study:
        """The study in a YAML file, or one that ships (``k-ablation``, ``heads``, ``smoke``, ...).

        Args:
            overrides: assignments as on the command line, such as ``"model.training.num_flops=1e13"``.
            store: folder of all results, or an address such as ``s3://bucket/path``; ``runs`` where unset.

        Warns of settings that change nothing in any row.

        Raises:
            ConfigurationError: no such study, an unknown key (with the nearest valid one), values that do not fit.
        """
        from pipelines.study.catalogue import resolve_study, unused_settings

        resolved = resolve_study(str(name_or_path), overrides)
        for note in unused_settings(str(name_or_path), overrides, resolved):
            warnings.warn(note, stacklevel=2)
        if store is not None:
            execution = resolved.execution.model_copy(update={"store": str(store)})
            resolved = resolved.model_copy(update={"execution": execution})
        return cls(resolved)

    @property
    def name(self) -> str:
        return self.config.name

    def plan(self) -> StudyPlan:
        """What the study will do and what it costs; starts nothing.

        Raises:
            ConfigurationError, UnknownName: it asks for what no trial could use, as ``calm-bench plan`` says it.
            WorkingDirectoryGone: the working directory has been removed.
        """
        from pipelines.planning.objective_text import settle_objective_text
        from pipelines.planning.planner import plan_study
        from pipelines.planning.preflight import check_study
        from pipelines.store.opening import open_store

        check_working_directory()
        for note in check_study(self.config):
            warnings.warn(note, stacklevel=2)
        store = open_store(self.config.execution.store)
        return StudyPlan(plan_study(settle_objective_text(self.config, store)[0], store))

    def run(self, *, local: bool = False, retry_failed: bool = False, quiet: bool = False) -> StudyResult:
        """Train and score what the store does not hold yet; returns the results of all trials.

        Progress comes as plain lines in a notebook and as a live panel in a terminal. Interrupting the kernel once
        saves and stops; the same call goes on.

        Args:
            local: in this process, one stage after the other, instead of on Ray.
            retry_failed: try failed trials again.
            quiet: print nothing.

        Raises:
            StudyInterrupted: it was asked to stop.
            FolderGone: somebody moved or removed the store.
            ChangedCode, CodeInNoFile: code of one's own is not what this process imported, or stands in a cell.
            ConfigurationError, CorpusError, ExecutorError, UnknownName: it cannot run as described; what can be seen
                before is seen before anything is trained.
        """
        from rich.console import Console

        from pipelines.app.running import run_and_report
        from pipelines.common.screen import forget_no_size, screen_of
        from pipelines.planning.objective_text import settle_objective_text
        from pipelines.planning.preflight import check_study, check_workers_find_code
        from pipelines.results.leaderboard import load_board
        from pipelines.store.opening import open_store

        check_working_directory()
        study = self.config
        if local:
            study = study.model_copy(update={"execution": study.execution.model_copy(update={"backend": "local"})})
        for remark in check_study(study, fetch=True):
            warnings.warn(remark, stacklevel=2)
        check_workers_find_code(study)
        study, note = settle_objective_text(study, open_store(study.execution.store))
        if note is not None:
            warnings.warn(note, stacklevel=2)
        forget_no_size()
        # In a notebook rich would show each line as an output of its own, whatever the file, and quiet would not be.
        screen = io.StringIO() if quiet or sys.stdout is None else screen_of(sys.stdout)
        console = Console(file=screen, force_jupyter=False)
        report = run_and_report(study, console, retry_failed)
        failed = {outcome.label: outcome.error or outcome.state for outcome in report.failed}
        # As result() reads it, so that the same rows are equal.
        board = load_board(report.folder) or report.leaderboard
        return StudyResult(board, report.folder, study.execution.store, failed)

    def result(self) -> StudyResult:
        """The results that the store holds of this study; runs nothing.

        Raises:
            FileNotFoundError: it has not ended in this store yet.
        """
        from pipelines.planning.objective_text import settle_objective_text
        from pipelines.results.leaderboard import load_board
        from pipelines.store.opening import open_store
        from pipelines.store.study_folder import study_folder

        store = open_store(self.config.execution.store)
        store.studies.folders(complete=True)
        folder = study_folder(settle_objective_text(self.config, store)[0], store)
        board = load_board(folder)
        if board is None:
            raise FileNotFoundError(f"the study {self.name} has not ended in {store.uri}: run() runs it, or goes on")
        return StudyResult(board, folder, self.config.execution.store)

    def __repr__(self) -> str:
        return f"<study {self.name}: {self.config.description}>"


@dataclass(frozen=True)
class StudyPlan:
    """What a study will do: its trials with their prices, its stages with their states."""

    plan: Plan

    @property
    def training_flops(self) -> float:
        """FLOPs of all trainings, each once."""
        return self.plan.flops

    @property
    def training_flops_to_run(self) -> float:
        """FLOPs of the trainings that the store does not hold yet."""
        return self.plan.flops_to_run

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data: what ``calm-bench plan --json`` prints."""
        return self.plan.to_dict()

    def _print(self, console: Console) -> None:
        from pipelines.report.plan_table import print_plan

        print_plan(self.plan, console)

    def __repr__(self) -> str:
        return as_text(self._print)

    def _repr_html_(self) -> str:
        return as_html(self._print)


@dataclass(frozen=True)
class StudyResult(Sequence["Entry"]):
    """The scored models of a study, best first: a sequence of rows."""

    leaderboard: Leaderboard
    folder: Path
    """The study's folder: leaderboard files, pictures, ``report.html``."""
    store: str
    failed: dict[str, str] | None = None
    """Label of each trial that has no row -> why; None where the results were read from the store."""

    @cached_property
    def rows(self) -> tuple[Entry, ...]:
        """All rows, best BrierLM first within a protocol; only rows of one ``protocol_hash`` can be compared."""
        return self.leaderboard.entries

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """One line per row, one column per field: scores with their errors, costs, counts, the protocol's hash."""
        import pandas

        # A label may be called NA, null or 007: only what is empty is missing, and what was text stays text.
        return pandas.read_csv(
            io.StringIO(self.leaderboard.to_csv(is_for_programs=True)),
            keep_default_na=False,
            na_values=[""],
            dtype=dict.fromkeys(self.leaderboard.text_columns(), str),
        )

    def load_model(self, label: str, device: str = "cpu") -> Model:
        """The trained model of the row called ``label``, whatever other studies of the store call theirs.

        Raises:
            ConfigurationError: this study has no such row, or several.
        """
        from calm_bench.overrides import ConfigurationError
        from pipelines.app.entrance.model import load_model
        from pipelines.scoring.model_names import ModelNames

        names = ModelNames({self.folder: self.leaderboard})
        found = names.one(label)
        if found is None:
            raise ConfigurationError(f"{self.folder.name} has no row called {label!r}{names.unknown(label)}")
        return load_model(f"{self.folder.name}#{found.entry.trial}", store=self.store, device=device)

    @property
    def headline(self) -> str:
        """The study's answer in sentences; empty where there are too few rows for one."""
        from pipelines.results.headline import headlines
        from pipelines.results.trajectories import read_trajectories

        found = headlines(self.leaderboard, read_trajectories(self.folder))
        return " ".join(sentence for one in found for sentence in one.brief)

    def _print(self, console: Console) -> None:
        from pipelines.report.tables import print_table
        from pipelines.results.leaderboard import Leaderboard
        from pipelines.results.pooling import pooled

        print_table(Leaderboard(pooled(self.leaderboard)), console)

    def __repr__(self) -> str:
        return as_text(self._print)

    def _repr_html_(self) -> str:
        return as_html(self._print)


def as_text(show: Callable[[Console], None]) -> str:
    """What ``show`` prints, without colours."""
    from rich.console import Console

    # A kernel sets FORCE_COLOR.
    console = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, color_system=None)
    show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def as_html(show: Callable[[Console], None]) -> str:
    """What ``show`` prints, as HTML with its colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    show(console)
    return console.export_html(
        inline_styles=True, code_format='<pre style="line-height:1.2;overflow-x:auto">{code}</pre>'
    )
