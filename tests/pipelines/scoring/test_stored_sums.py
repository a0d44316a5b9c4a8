"""Scores in a store answer for the weights that were scored, and for no others under the same name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipelines.app.run_context import RunContext
from pipelines.app.running import run_and_report
from pipelines.scoring.models import find_model
from pipelines.scoring.scoring import Scoring
from pipelines.scoring.stored_sums import sums_of
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study

SETTINGS: tuple[str, ...] = (
    "corpus.source=markov",
    "corpus.markov.num_documents=60",
    "corpus.markov.document_length=300",
)
SETTINGS += ("search.parameters.0.include=[token]", "model.training.num_steps=2", "model.training.num_flops=null")
SETTINGS += ("evaluation.max_windows=6", "samples.num_prompts=0", "tracking.enabled=false", "execution.backend=local")


@pytest.mark.slow
def test_a_copy_with_other_weights_is_scored_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    study = resolve_study("smoke", [*SETTINGS, f"execution.store={tmp_path / 'runs'}"])
    with RunContext.of(study) as context:
        report = run_and_report(study, Console(quiet=True), context=context)
    assert not report.failed
    store = Store(tmp_path / "runs")
    stage = next((tmp_path / "runs" / "stages" / "language_model").iterdir())
    copy = tmp_path / "elsewhere" / stage.name
    shutil.copytree(stage, copy)
    calls: list[Path] = []
    whole = Scoring.brierlm

    def counted(self: Scoring, *arguments: object) -> object:
        calls.append(self.model.folder)
        return whole(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Scoring, "brierlm", counted)

    def scored(folder: Path) -> float:
        # A copy outside the store does not tell how the model was scored.
        settings = [text for text in SETTINGS if text.startswith("corpus.")]
        settings += [f"evaluation.{key}={json.dumps(value)}" for key, value in study.evaluation.model_dump().items()]
        model = find_model(str(folder), store)
        return float(sums_of(Scoring(model, store, settings), store).sums.totals.sum())

    kept = scored(stage)
    assert scored(copy) == kept
    assert calls == []  # an equal copy is the model
    weights = copy / "model" / "model.safetensors"
    save_file({name: tensor * 3 for name, tensor in load_file(weights).items()}, weights)
    assert scored(copy) != kept
    assert calls == [copy / "model"]
