"""What the text does not allow is told as soon as there is text, before hours of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError
from pipelines.app.run_context import RunContext
from pipelines.app.running import run_and_report
from pipelines.planning.preflight import check_study
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.kinds.evaluation import MIN_WINDOWS, text_is_too_short
from pipelines.study.stage_kind import STAGE_KINDS
from tests.evals.own_tasks import ROWS, write_task

SETTINGS: tuple[str, ...] = (
    "corpus.source=markov",
    "corpus.markov.num_documents=60",
    "corpus.markov.document_length=300",
)
SETTINGS += ("search.parameters.0.include=[token]", "samples.num_prompts=0", "tracking.enabled=false")


def test_the_smallest_number_of_windows_is_that_of_scoring() -> None:
    from evals.clusters import MIN_CLUSTERS

    assert MIN_WINDOWS == MIN_CLUSTERS


def test_a_text_too_short_is_known_from_its_tokens() -> None:
    stage = stages_for(Experiment())["evaluation"]
    assert stage.config["protocol"]["context_length"] == 256
    assert text_is_too_short(stage, {}) is None
    assert text_is_too_short(stage, {"tokens": {"tokens": {"test": 768}}}) is None
    reason = text_is_too_short(stage, {"tokens": {"tokens": {"test": 767}}})
    assert reason is not None
    assert "767 tokens" in reason
    assert "lower evaluation.context_length" in reason
    few = stages_for(Experiment.model_validate({"evaluation": {"max_windows": 2}}))["evaluation"]
    assert "max_windows is 2" in str(text_is_too_short(few, {"tokens": {"tokens": {"test": 9000}}}))


def test_shards_too_short_for_a_sequence_are_known_from_the_settings() -> None:
    training = {"num_steps": 1, "sequence_length": 256, "shuffle_shards": 4}
    model = {"training": training}
    short = {"tokens": {"shard_tokens": 255}}
    graph = stages_for(Experiment.model_validate({"model": model, "autoencoder": model, **short}))
    for kind, section in (("language_model", "model"), ("autoencoder", "autoencoder")):
        refusal = STAGE_KINDS.get(kind).refusal
        reason = refusal(graph[kind], {})
        assert reason == (
            f"no sequence of 256 tokens fits into a shard of 255, which {section}.training.shuffle_shards asks for: "
            "raise tokens.shard_tokens"
        )
        assert refusal(stages_for(Experiment.model_validate(short))[kind], {}) is None
        assert refusal(stages_for(Experiment.model_validate({"model": model, "autoencoder": model}))[kind], {}) is None


@pytest.mark.slow
def test_nothing_is_trained_for_it(tmp_path: Path) -> None:
    settings = [*SETTINGS, "evaluation.context_length=8192", f"execution.store={tmp_path}", "execution.backend=local"]
    study = resolve_study("smoke", settings)
    with RunContext.of(study) as context:
        report = run_and_report(study, Console(quiet=True), context=context)
    assert len(report.failed) == 1
    assert "scoring needs 3 windows of 8,192 tokens" in str(report.failed[0].error)
    assert sorted(path.name for path in (tmp_path / "stages").iterdir() if any(path.iterdir())) == ["corpus", "tokens"]


@pytest.mark.slow
def test_nothing_is_trained_for_an_answer_too_long_in_trained_tokens(tmp_path: Path) -> None:
    rows = [{**row, "choices": ["even", "odd " * 30]} for row in ROWS]
    tasks = f"benchmarks.tasks=[{write_task(tmp_path, rows=rows)}]"
    settings = [*SETTINGS, f"execution.store={tmp_path / 'runs'}", "execution.backend=local", tasks]
    study = resolve_study("smoke", [*settings, "tokens.tokenizer=bpe", "benchmarks.max_length=100"])
    check_study(study)
    with RunContext.of(study) as context:
        report = run_and_report(study, Console(quiet=True), context=context)
    assert "question 1: an answer of 121 tokens (bpe) cannot be scored where 99 are read" in str(report.failed[0].error)
    stages = tmp_path / "runs" / "stages"
    assert sorted(path.name for path in stages.iterdir() if any(path.iterdir())) == ["corpus", "tokens"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_study_needs_all_splits(split: str) -> None:
    study = Study.model_validate({"name": "a", "corpus": {f"{split}_fraction": 0}})
    with pytest.raises(ConfigurationError, match=f"corpus.{split}_fraction=0 leaves no text.*above 0"):
        check_study(study)


RATE = "name: model.training.learning_rate"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"search.parameters=[{{{RATE}, low: 1, high: 0.1}}]", r"low \(1\) is larger than high \(0\.1\)"),
        (f"search.parameters=[{{{RATE}, low: 0, high: 1, log: true}}]", "logarithmic scale .* begins above 0"),
        ("search.parameters=[{name: seed, low: 0.5, high: 3, integer: true}]", "must be whole numbers"),
        ("search.parameters=[{name: seed, values: []}]", "values is empty, so there is nothing to choose from"),
        ("search.parameters=[{name: it, choices: {}}]", "choices is empty"),
        ("search.parameters.0.include=[]", "include is empty"),
        ("model.training.learning_rate=.inf", r"model\.training\.learning_rate: inf is no number"),
        ("model.training.num_flops=1e400", r"model\.training\.num_flops: inf is no number"),
        (
            f"search.parameters=[{{{RATE}, values: [0.1, .nan]}}]",
            r"search\.parameters\[0\]\.values\[1\]: nan is no number",
        ),
    ],
)
def test_settings_that_no_trial_could_have(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_study("smoke", [setting])
