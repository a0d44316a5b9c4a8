"""What ``calm-bench eval`` is asked for, and the report that answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.scoring.eval_rows import RowOfModel
from pipelines.scoring.evaluation_report import EvaluationReport

if TYPE_CHECKING:
    from pipelines.scoring.models import TrainedModel
    from pipelines.store.store import Store

ProtocolName = Literal["matched", "paper", "words", "bytes"]
"""``words`` and ``bytes`` count these instead of tokens, so that models with different tokenizers compare."""
OFFLINE = "offline"
"""Stands for all tasks of this package that need no network, BrierLM's left out."""
OFFLINE_TASKS = ("stdlib_choice", "stdlib_last_word", "stdlib_bits", "markov_choice")


_OF_TASKS = (
    ("--limit", "limit"),
    ("--scorer", "scorer"),
    ("--samples", "num_samples"),
    ("--max-length", "max_length"),
    ("--alignment", "alignment"),
)
"""Options that tasks alone go by, with their fields."""


@dataclass(frozen=True)
class EvalRequest:
    """Scores to be had."""

    protocols: tuple[ProtocolName, ...] = ("matched", "paper")
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    scorer: str | None = None
    num_samples: int = 64
    max_length: int | None = None
    """Tokens read for a task, prompt and answer; unset means the same as in a study (1024), and of a model of
    transformers all of its positions."""
    alignment: str = "continuation"
    texts: bool = True
    """Whether the model is to write, too."""
    entries: bool = False
    """Whether the scores are wanted as rows of a leaderboard, too."""

    @staticmethod
    def of(
        protocols: str,
        tasks: str,
        limit: int | None,
        scorer: str | None,
        num_samples: int,
        max_length: int | None,
        alignment: str,
        texts: bool,
        entries: bool = False,
    ) -> EvalRequest:
        """From lists separated by commas.

        Raises:
            ConfigurationError: an unknown protocol, nothing to be done, or settings of tasks without a task.
            UnknownName: an unknown scorer, whether or not a task asks for it.
        """
        names = [name for name in _names(protocols) if name != "none"]
        known = get_args(ProtocolName)
        for name in names:
            if name not in known:
                raise ConfigurationError(f"unknown protocol {name!r}{did_you_mean(name, list(known))}")
        wanted = [one for name in _names(tasks) for one in (OFFLINE_TASKS if name == OFFLINE else (name,))]
        if not names and not wanted:
            raise ConfigurationError("neither a protocol nor a task is named, so there is nothing to score")
        if scorer is not None:
            _check_scorer(scorer)
        found = EvalRequest(
            tuple(cast(list[ProtocolName], names)),
            tuple(dict.fromkeys(wanted)),
            limit,
            scorer,
            num_samples,
            max_length,
            alignment,
            texts,
            entries,
        )
        if not wanted and (unheard := [option for option, name in _OF_TASKS if found.has_set(name)]):
            raise ConfigurationError(
                f"{' and '.join(unheard)} would change nothing: no task is named. Add --tasks, such as --tasks "
                f"{OFFLINE}, or leave {'it' if len(unheard) == 1 else 'them'} out"
            )
        return found

    def has_set(self, name: str) -> bool:
        """Whether the field ``name`` differs from its default."""
        return bool(getattr(self, name) != getattr(EvalRequest(), name))

    @property
    def parameters(self) -> dict[str, Any]:
        """For MLflow."""
        names = ("limit", "scorer", "num_samples", "max_length", "alignment")
        given = {name: getattr(self, name) for name in names}
        return {"protocols": ",".join(self.protocols), "tasks": ",".join(self.tasks), **given}


def _check_scorer(name: str) -> None:
    from evals.scorers import EXACT, SCORERS

    if name != EXACT:
        SCORERS.get(name)


def evaluate_model(
    name: str,
    model: TrainedModel,
    store: Store,
    overrides: Sequence[str],
    device: str,
    wanted: EvalRequest,
    progress: Callable[[str, int, int], None] | None = None,
) -> EvaluationReport:
    """All that is ``wanted`` of ``model``, called ``name``.

    A protocol that the model or the text does not allow is left out, with its reason, if another gives a number.

    Args:
        progress: called with a protocol, and the windows (or documents) done and in all.

    Raises:
        ConfigurationError, EvaluationError, UnknownName: as :class:`pipelines.scoring.scoring.Scoring`.
    """
    from evals.protocol import EvaluationError
    from pipelines.scoring.scoring import Scoring

    settings = None
    if wanted.tasks:
        from evals.harness_reader import HarnessSettings

        # Checked before minutes are spent on anything else.
        from evals.task_loading import check_tasks

        settings = HarnessSettings(
            scorer=wanted.scorer,
            num_samples=wanted.num_samples,
            max_length=wanted.max_length or HarnessSettings.max_length,
            alignment=cast(Any, wanted.alignment),
        )
        check_tasks(wanted.tasks, wanted.limit)
    scoring = Scoring(model, store, overrides, device)
    # Before anything is scored: what the model's class declares may be refused.
    row = RowOfModel.of(name, scoring, store) if wanted.entries else None
    tasks, left_out = [], list[str]()
    if settings is not None:
        tasks = scoring.tasks(wanted.tasks, wanted.limit, settings, left_out.append, wanted.max_length)
    results = []
    for protocol in wanted.protocols:
        try:
            told = None if progress is None else partial(progress, protocol)
            if protocol == "words" or protocol == "bytes":
                results.append(scoring.text_brierlm(protocol, told))
            else:
                results.append(scoring.brierlm(protocol, told))
        except EvaluationError as error:
            if protocol == wanted.protocols[-1] and not results and not tasks:
                raise
            left_out.append(f"protocol {protocol}: {error}")
    texts = scoring.texts() if wanted.texts else []
    entries = () if row is None else row.entries(results, tasks, scoring.text)
    return EvaluationReport(name, results, tasks, texts, left_out, scoring.text, entries)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
