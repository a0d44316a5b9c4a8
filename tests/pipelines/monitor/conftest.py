"""A study's course as events: a K ablation over several seeds, without training it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.execution import events
from pipelines.execution.events import Event
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.space import grid_points, label_of, settings_at
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome

FOLDER = Path("store")
FLOPS = {"autoencoder": 2e12, "language_model": 4e12}
SECONDS = {"autoencoder": 30.0, "language_model": 60.0, "evaluation": 10.0}


def _graph(experiment: Experiment) -> StageGraph:
    """As :func:`pipelines.study.graph.stages_for`, without reading a corpus."""
    model, seed = experiment.model, experiment.seed
    corpus = Stage("corpus", 1, {}, label="corpus")
    tokens = Stage("tokens", 1, {}, {"corpus": corpus}, label="tokens")
    stages, inputs = [corpus, tokens], {"tokens": tokens}
    name = "token model"
    if model.kind == "calm":
        config = {"seed": seed, "K": model.chunk_size}
        label = f"autoencoder K={model.chunk_size}"
        inputs["autoencoder"] = Stage("autoencoder", 1, config, {"tokens": tokens}, label=label)
        stages.append(inputs["autoencoder"])
        name = f"language model K={model.chunk_size}"
    trained = Stage("language_model", 1, {"seed": seed, "model": name}, inputs, label=name)
    score = Stage("evaluation", 1, {}, {"language_model": trained}, label=f"evaluation of the {name}")
    return StageGraph((*stages, trained, score))


class Course:
    """Makes the events of a study in which trials end one after the other."""

    def __init__(self, num_trials: int, **search: Any) -> None:
        study = resolve_study("k-ablation").model_dump(mode="json")
        study["search"]["parameters"][0]["include"] = ["token", "K=1", "K=2", "K=4"]
        if num_trials > 4:
            seeds = list(range(num_trials // 4))
            study["search"]["parameters"].append({"name": "seed", "values": seeds})
        self.study = Study.model_validate(study | search)
        self.trials: list[tuple[int, str, StageGraph]] = []
        for number, point in enumerate(grid_points(self.study.search)):
            settings = settings_at(self.study.search, point)
            label = label_of(self.study.search, point, self.study.name)
            self.trials.append((number, label, _graph(apply_settings(self.study.experiment(), settings))))
        self._done: set[Stage] = set()

    def start(self, cached: tuple[str, ...] = ("corpus", "tokens"), folder: Path = FOLDER) -> list[Event]:
        """All trials are taken up; stages of the kinds ``cached`` are in the store."""
        told: list[Event] = [
            events.StudyStarted(self.study.name, "ab", folder, len(self.trials), self.study.search.objectives)
        ]
        seen: set[Stage] = set()
        for number, label, graph in self.trials:
            told.append(events.TrialStarted(number, label, {}, graph))
            for stage in graph.stages:
                if stage in seen:
                    continue
                seen.add(stage)
                if stage.kind in cached:
                    self._done.add(stage)
                    told.append(events.StageCached(stage, FOLDER, self.result(stage)))
                else:
                    told.append(events.StageQueued(stage))
        return told

    def end(self, number: int, cached: bool = False) -> list[Event]:
        """A trial runs to its end."""
        number, label, graph = self.trials[number]
        told: list[Event] = []
        for stage in graph.stages:
            if stage not in self._done:
                self._done.add(stage)
                told.append(events.StageStarted(stage, FOLDER))
                told.append(events.StageFinished(stage, FOLDER, self.result(stage, number), SECONDS[stage.kind]))
        results = {stage.kind: self.result(stage, number) for stage in graph.stages}
        score = results["evaluation"]["brierlm"]
        end = TrialOutcome(number, label, {}, "complete", graph=graph, results=results, values=(score,), cached=cached)
        return [*told, events.TrialFinished(end)]

    def fail(self, number: int, error: str) -> list[Event]:
        """A trial's language model fails."""
        number, label, graph = self.trials[number]
        return [
            events.StageFailed(graph["language_model"], error),
            events.TrialFailed(TrialOutcome(number, label, {}, "failed", error, graph=graph)),
        ]

    def run(self, number: int, step: int = 500) -> list[Event]:
        """A trial's language model is under way, at ``step`` of 1000."""
        stage = self.trials[number][2]["language_model"]
        told: list[Event] = [events.StageStarted(stage, FOLDER)]
        for at in (100, step):
            numbers = {"loss": 3.0 - at / 1000, "tokens_per_second": 21_034.0}
            told.append(events.StageProgress(stage, at, 1000, numbers, "train", 0.0, 4e9 * at, at / 10))
        return told

    def result(self, stage: Stage, number: int = 0) -> dict[str, Any]:
        if stage.kind == "evaluation":
            return {"brierlm": 14.5 - number / 10, "brierlm_se": 0.7}
        return {"training_flops": FLOPS[stage.kind]} if stage.kind in FLOPS else {}


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Course]:
    """``course(num_trials)``: a study of 4, or of a multiple of 4 trials."""

    def planned(stage: Stage) -> float:
        return FLOPS.get(stage.kind, 0.0)

    # The stages above are no experiment's, so that their price is given.
    monkeypatch.setattr("pipelines.monitor.state.stage_flops", planned)
    return lambda num_trials, **search: Course(num_trials, **search)
