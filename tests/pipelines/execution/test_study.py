"""Studies with real training, Optuna and files; the small ones of conftest."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from calm_bench.config import Experiment
from pipelines.execution.events import (
    Event,
    StageCached,
    StageFinished,
    StageProgress,
    StageQueued,
    StageStarted,
    StudyFinished,
    StudyStopping,
    TrialFinished,
)
from pipelines.execution.local_executor import LocalExecutor
from pipelines.search.drive import StudyInterrupted, run_study
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.identity import study_identity
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome

TinyStudy = Callable[..., Study]


def _search(**choices: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": [{"name": "model", "choices": choices}]}


def test_a_study_from_text_to_scores_and_again(
    run: Callable[..., list[TrialOutcome]], store: Store, tiny_study: TinyStudy, recorder: Any
) -> None:
    study, first, second = tiny_study(), recorder(), recorder()
    outcomes = run(study, first)
    assert [(outcome.label, outcome.state) for outcome in outcomes] == [
        ("token", "complete"),
        ("K=1", "complete"),
        ("K=2", "complete"),
    ]
    finished = sorted(first.kinds_of(StageFinished))
    assert finished == ["autoencoder"] * 2 + ["corpus"] + ["evaluation"] * 3 + ["language_model"] * 3 + ["tokens"]
    assert sorted(first.kinds_of(StageQueued)) == sorted(first.kinds_of(StageStarted)) == finished
    assert first.kinds_of(StageProgress).count("autoencoder") == 2 * 3, "two training records, one of validation"
    for outcome in outcomes:
        assert outcome.values == (outcome.results["evaluation"]["brierlm"],)
        assert outcome.folders["language_model"].is_dir()
        assert not outcome.cached
    assert isinstance(first.events[-1], StudyFinished)

    again = run(study, second)
    assert second.kinds_of(StageFinished) == []
    assert sorted(second.kinds_of(StageCached)) == finished
    assert [outcome.results for outcome in again] == [outcome.results for outcome in outcomes]
    assert all(outcome.cached for outcome in again)

    folder = study_folder(study, store)
    assert Study.model_validate(yaml.safe_load((folder / "study.yaml").read_text())) == study
    trials = json.loads((folder / "trials.json").read_text())
    assert [trial["label"] for trial in trials] == ["token", "K=1", "K=2"]
    assert trials[1]["stages"]["tokens"] == trials[2]["stages"]["tokens"]
    assert list((store.root / "work").iterdir()) == [], "nothing half-written is left"
    assert [path for path in (store.root / "leases").iterdir() if path.suffix == ".json"] == []


def test_trials_that_differ_in_the_model_share_an_autoencoder(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    heads = {"sharp": {"model.head.alpha": 0.5}, "smooth": {"model.head.alpha": 1.5}}
    listener = recorder()
    run(tiny_study(search=_search(**heads)), listener)
    assert listener.kinds_of(StageFinished).count("autoencoder") == 1
    assert listener.kinds_of(StageFinished).count("language_model") == 2


def test_an_ablation_with_three_seeds_trains_an_autoencoder_once_per_k_and_seed(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    choices = {
        "token": {"model.kind": "token"},
        "K=1": {"model.chunk_size": 1},
        "K=2": {"model.chunk_size": 2},
        "K=2 smooth": {"model.chunk_size": 2, "model.head.alpha": 1.5},
    }
    search = {"parameters": [{"name": "model", "choices": choices}, {"name": "seed", "values": [0, 1, 2]}]}
    listener = recorder()
    outcomes = run(tiny_study(search=search), listener)
    assert {outcome.state for outcome in outcomes} == {"complete"}
    trained = Counter(
        (event.stage.config["autoencoder"]["chunk_size"], event.stage.config["seed"])
        for event in listener.events
        if isinstance(event, StageStarted) and event.stage.kind == "autoencoder"
    )
    assert trained == Counter({(chunk_size, seed): 1 for chunk_size in (1, 2) for seed in (0, 1, 2)})
    started = Counter(listener.kinds_of(StageStarted))
    assert started == {"corpus": 1, "tokens": 1, "autoencoder": 6, "language_model": 12, "evaluation": 12}


def test_workers_that_cannot_share_a_batch_are_refused_before_the_autoencoder_is_trained(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    settings = {"model.training.batch_size": 2}
    listener = recorder()
    (outcome,) = run(tiny_study(search=_search(small=settings), execution={"workers": 3}), listener)
    assert outcome.state == "invalid"
    assert str(outcome.error).startswith("language model K=4: 3 workers cannot share micro-batches of 2 sequences")
    assert listener.kinds_of(StageStarted) == []
    # What is finished needs no workers any more.
    (alone,) = run(tiny_study(name="alone", search=_search(small=settings)))
    (kept,) = run(tiny_study(name="again", search=_search(small=settings), execution={"workers": 3}))
    assert (kept.state, kept.values) == ("complete", alone.values)


def test_a_trial_that_could_not_be_run_is_run_when_it_can_be(
    run: Callable[..., list[TrialOutcome]], store: Store, tiny_study: TinyStudy, recorder: Any
) -> None:
    """Nothing of it was tried, so it is no failure that only --retry-failed would try again."""
    search = _search(small={"model.kind": "token", "model.training.batch_size": 2}, other={"model.kind": "token"})

    def states(workers: int, **options: bool) -> list[str]:
        return [one.state for one in run(tiny_study(search=search, execution={"workers": workers}), **options)]

    # Workers that are asked for are none without Ray.
    assert states(3) == ["invalid", "complete"]
    assert states(3) == ["invalid", "complete"]
    assert states(3, retry_failed=True) == ["invalid", "complete"]
    for _ in range(2):
        first, second = run(tiny_study(search=search))
        assert (first.state, first.error, second.cached) == ("complete", None, True)
        assert (first.number, second.number) == (0, 1)
    assert first.cached


def test_text_too_short_for_the_model_is_known_before_its_autoencoder_is_trained(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    corpus = {"source": "markov", "markov": {"num_documents": 40, "document_length": 100}}
    listener = recorder()
    (outcome,) = run(tiny_study(corpus=corpus, search=_search(long={"model.training.sequence_length": 1024})), listener)
    assert outcome.state == "failed"
    assert "validation split has" in str(outcome.error)
    assert "lower model.training.sequence_length, or raise corpus.validation_fraction" in str(outcome.error)
    assert listener.kinds_of(StageStarted) == ["corpus", "tokens"]
    # Both ways out that are named.
    raised = corpus | {"validation_fraction": 0.5}
    for sections in ({"corpus": raised, "search": _search(long={"model.training.sequence_length": 1024})}, {}):
        outcomes = run(tiny_study(**{"search": _search(short={"model.training.sequence_length": 64}), **sections}))
        assert [(found.state, found.error) for found in outcomes] == [("complete", None)]


def test_a_failed_and_an_invalid_trial_leave_the_others_alone(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    search = _search(
        broken={"model.kind": "token", "model.training.learning_rate": 1e30, "model.training.clip_norm": 1e30},
        impossible={"model.chunk_size": 3},
        good={"model.kind": "token"},
    )
    outcomes = run(tiny_study(search=search))
    assert [outcome.state for outcome in outcomes] == ["failed", "invalid", "complete"]
    assert "token model: NonFiniteLoss" in str(outcomes[0].error)
    assert sorted(outcomes[0].results) == ["corpus", "tokens"]
    assert "not a multiple of model.chunk_size 3" in str(outcomes[1].error)

    listener = recorder()
    again = run(tiny_study(search=search), listener)
    assert [(outcome.state, outcome.error) for outcome in again] == [(o.state, o.error) for o in outcomes]
    assert listener.kinds_of(StageQueued) == [], "what failed is not tried again unasked"
    listener = recorder()
    retried = run(tiny_study(search=search), listener, retry_failed=True)
    assert sorted(outcome.state for outcome in retried) == ["complete", "failed", "invalid"]
    assert listener.kinds_of(StageStarted) == ["language_model"]


def test_results_deleted_from_the_store_are_made_again(
    run: Callable[..., list[TrialOutcome]], store: Store, tiny_study: TinyStudy, recorder: Any
) -> None:
    study = tiny_study(search=_search(token={"model.kind": "token"}))
    (outcome,) = run(study)
    (outcome.folders["evaluation"] / "result.json").unlink()
    (outcome.folders["evaluation"]).rename(store.root / "elsewhere")
    listener = recorder()
    (again,) = run(study, listener)
    assert listener.kinds_of(StageFinished) == ["evaluation"]
    assert again.values == outcome.values


def _with_patience(experiment: Experiment) -> StageGraph:
    """The real stages, and one more after them that does not end before it was stopped once."""
    real = stages_for(experiment)
    return StageGraph(
        (*real.stages, Stage("patient", 1, {"seed": experiment.seed}, {"evaluation": real["evaluation"]}))
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_goes_on_where_it_was(
    run: Callable[..., list[TrialOutcome]],
    store: Store,
    tiny_study: TinyStudy,
    recorder: Any,
    number: signal.Signals,
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage.kind == "patient":
            os.kill(os.getpid(), number)

    study = tiny_study(search=_search(token={"model.kind": "token"}))
    handlers = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    listener = recorder(stop)
    with pytest.raises(StudyInterrupted, match=r"0 of 1 trials have ended.*The same command goes on"):
        run(study, listener, graph_for=_with_patience)
    assert any(isinstance(event, StudyStopping) for event in listener.events)
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert json.loads((study_folder(study, store) / "trials.json").read_text())[0]["state"] == "open"

    listener = recorder()
    (outcome,) = run(study, listener, graph_for=_with_patience)
    assert listener.kinds_of(StageFinished) == ["patient"]
    assert outcome.state == "complete"


def test_a_second_ctrl_c_ends_at_once(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any
) -> None:
    def insist(event: Event) -> None:
        if isinstance(event, StageQueued | StudyStopping):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny_study(search=_search(token={"model.kind": "token"})), recorder(insist))


def test_tpe_searches_the_same_trials_whatever_was_interrupted(
    run: Callable[..., list[TrialOutcome]], tiny_study: TinyStudy, recorder: Any, tmp_path: Path
) -> None:
    search = {
        "sampler": "tpe",
        "num_trials": 5,
        "concurrent_trials": 2,
        "parameters": [{"name": "model.training.learning_rate", "low": 1e-4, "high": 1e-2, "log": True}],
        "objectives": [{"metric": "brierlm"}, {"metric": "inference_flops_per_token", "direction": "minimize"}],
    }
    study = tiny_study(search=search, model=tiny_study().model.model_dump() | {"kind": "token"})

    def stop(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.outcome.number == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StudyInterrupted):
        run(study, recorder(stop))
    outcomes = run(study)
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3, 4]

    other = Store(tmp_path / "other")
    executor = LocalExecutor(other, "cpu")
    undisturbed = run_study(study, other, executor)
    executor.close()
    assert [outcome.settings for outcome in undisturbed] == [outcome.settings for outcome in outcomes]
    assert [outcome.values for outcome in undisturbed] == [outcome.values for outcome in outcomes]


def test_execution_and_tracking_are_no_part_of_a_study(tiny_study: TinyStudy) -> None:
    study = tiny_study()
    elsewhere = tiny_study(execution={"backend": "local", "store": "there"}, tracking={"enabled": False})
    assert study_identity(study) == study_identity(elsewhere)
    assert study_identity(study) != study_identity(tiny_study(seed=1))


def test_passwords_do_not_reach_the_written_configuration(
    run: Callable[..., list[TrialOutcome]], store: Store, tiny_study: TinyStudy
) -> None:
    tracking = {"uri": "postgresql://me:hunter2@host/db"}
    study = tiny_study(search=_search(impossible={"model.chunk_size": 3}), tracking=tracking)
    run(study)
    text = (study_folder(study, store) / "study.yaml").read_text()
    assert "postgresql://" in text
    assert "hunter2" not in text


def test_more_choices_run_what_the_study_with_fewer_has_not(
    run: Callable[..., list[TrialOutcome]], store: Store, tiny_study: TinyStudy, recorder: Any
) -> None:
    token, other = {"model.kind": "token"}, {"model.kind": "token", "seed": 1}
    run(tiny_study(search=_search(token=token)))
    listener = recorder()
    outcomes = run(tiny_study(search=_search(token=token, other=other)), listener)
    assert [outcome.cached for outcome in outcomes] == [True, False]
    assert listener.kinds_of(StageFinished) == ["language_model", "evaluation"]
    assert len(list((store.root / "studies").iterdir())) == 2
