"""Code of one's own that is edited between two runs of one study, as whoever writes a head does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from calm_bench.trusted_code import trust_code
from pipelines.execution.events import TrialFinished
from pipelines.planning.planner import plan_study
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.study.named_content import named_content
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.trial_sources import open_journal

HEAD = """
import torch
from calm_bench.heads import Head

class Mean(Head):
    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.network = torch.nn.Linear(hidden_size, latent_size)
        self.calls = 0

    def loss(self, hidden, target_mean, target_log_std, generator=None):
        self.calls += 1
        assert self.calls < MOST, "a mistake of mine"
        return SCALE * (self.network(hidden) - target_mean).square().mean(), {}

    def sample(self, hidden, num_samples, generator=None):
        mean = self.network(hidden)
        return mean.expand(num_samples, *mean.shape) * 1.0
"""
NAME = "head_that_is_edited"
Run = Callable[..., list[TrialOutcome]]
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the head, as before a new process is started."""
    monkeypatch.syspath_prepend(tmp_path)
    trust_code(f"{NAME}:Mean")

    def write(scale: int, most: int = 10**9) -> None:
        sys.modules.pop(NAME, None)
        (tmp_path / f"{NAME}.py").write_text(HEAD.replace("SCALE", str(scale)).replace("MOST", str(most)))

    return write


@pytest.fixture
def study(tiny_study: Callable[..., Study]) -> Study:
    search = {
        "sampler": "tpe",
        "num_trials": 2,
        "concurrent_trials": 1,
        "split": "validation",
        "objectives": [{"metric": "validation_loss"}],
        "parameters": [{"name": "model.training.learning_rate", "low": 1e-3, "high": 1e-2, "log": True}],
    }
    model = tiny_study().model.model_dump(mode="json") | {"chunk_size": 1}
    return tiny_study(search=search, model=model | {"head": {"kind": "custom", "target": f"{NAME}:Mean"}})


def told(study: Study, store: Store) -> list[list[float]]:
    """What the searches of the study were told, in the order in which they began."""
    storage = open_journal(study_folder(study, store))
    names = optuna.get_all_study_names(storage)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    return [[trial.value for trial in one.trials if trial.value is not None] for one in studies]


def test_scores_of_older_code_choose_no_trials_of_the_new_one(
    run: Run, store: Store, study: Study, write: Write, recorder: Any
) -> None:
    def values(listener: Any = None) -> list[float]:
        outcomes = run(study, listener)
        assert [(one.number, one.state) for one in outcomes] == [(0, "complete"), (1, "complete")]
        return [one.values[0] for one in outcomes]

    def to_run() -> int:
        sampled = plan_study(study, store).sampled
        assert sampled is not None
        return sampled.num_to_run

    write(scale=1)
    first = values()
    assert told(study, store) == [first]
    assert to_run() == 0
    write(scale=100)
    assert to_run() == 2
    second = values()
    assert min(second) > 10 * max(first)
    assert told(study, store) == [first, second]
    write(scale=1)
    again = recorder()
    assert values(again) == first
    assert all(event.outcome.cached for event in again.events if isinstance(event, TrialFinished))
    assert told(study, store) == [first, second]


def test_a_mistake_that_was_mended_is_no_failure_any_more(run: Run, study: Study, write: Write) -> None:
    """What is tried again unasked is what was never tried."""
    write(scale=1, most=3)
    for _ in range(2):
        outcomes = run(study)
        assert ["a mistake of mine" in str(one.error) for one in outcomes] == [True, True]
    write(scale=1)
    assert [one.state for one in run(study)] == ["complete", "complete"]


def test_a_study_that_names_no_content_has_none(tiny_study: Callable[..., Study], tmp_path: Path) -> None:
    assert named_content(tiny_study()) is None
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    named = tiny_study(tokens={"tokenizer": str(tokenizer)})
    (tokenizer / "tokenizer.json").write_text("{}")
    before = named_content(named)
    (tokenizer / "tokenizer.json").write_text("{ }")
    assert None is not before != named_content(named)
