"""Which trials are stopped: a property of the study, whatever was faster."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.execution.events import Event, StageCached, StageDropped, StageFinished, StageProgress
from pipelines.search.pruning import RULES, Pruner
from pipelines.study.config import Study
from pipelines.study.search_settings import Search
from pipelines.study.stage import Stage, StageGraph

LOSSES = {0: 3.0, 1: 2.0, 2: 2.5, 3: 4.0, 4: 3.5, 5: 1.0, 6: 2.7, 7: 2.2}
"""Final loss by trial; a curve falls to it from 9."""
FLOPS = tuple(100.0 * share for share in (0.1, 0.3, 0.6, 1.0))


def _curve(number: int) -> list[tuple[float, float]]:
    return [(flops, 9 + (LOSSES[number] - 9) * flops / 100) for flops in FLOPS]


def _stage(number: int) -> Stage:
    return Stage("language_model", 1, {"seed": number})


def _progress(stage: Stage, flops: float, loss: float) -> StageProgress:
    return StageProgress(stage, int(flops), 100, {"loss": loss}, "validation", flops=flops)


def _play(pruner: str, order: random.Random, folder: Path) -> dict[int, str | None]:
    """Feed validations in a random order of the trials; a pruned trial reports no more."""
    judge = Pruner(Search.model_validate({"pruner": pruner, "rungs": 2}), 100.0)
    for number in LOSSES:
        judge.add(number, Experiment(), StageGraph((_stage(number),)))
    left = {number: _curve(number) for number in LOSSES}
    while left:
        number = order.choice(list(left))
        if judge.verdict(number) is not None:
            del left[number]
        elif left[number]:
            judge.handle(_progress(_stage(number), *left[number].pop(0)))
        else:
            del left[number]
            lines = [
                {"step": 1, "split": "validation", "flops": flops, "time": 0.0, "metrics": {"loss": loss}}
                for flops, loss in _curve(number)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            judge.handle(StageFinished(_stage(number), folder, {}, 1.0))
        judge.judge()
    assert all(judge.is_judged(number) or judge.verdict(number) for number in LOSSES)
    return {number: judge.verdict(number) for number in LOSSES}


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_verdicts_do_not_depend_on_who_is_faster(pruner: str, tmp_path: Path) -> None:
    plays = [_play(pruner, random.Random(seed), tmp_path) for seed in range(20)]
    assert all(play == plays[0] for play in plays)
    pruned = {number for number, reason in plays[0].items() if reason is not None}
    assert pruned == {"median": {4, 6}, "halving": {3, 4, 6}}[pruner]
    assert "at 25 training FLOPs" in str(plays[0][4])


def test_rules() -> None:
    assert RULES["median"](9.0, [1.0, 2.0, 3.0]) is None, "three trials are too few to judge by"
    assert RULES["median"](2.5, [1.0, 2.0, 3.0, 4.0]) is None
    assert RULES["median"](2.6, [1.0, 2.0, 3.0, 4.0]) == "above the median 2.5 of 4 trials"
    assert RULES["halving"](2.0, []) is None
    assert RULES["halving"](2.0, [1.0]) is not None
    assert RULES["halving"](2.0, [1.0, 3.0]) is None
    assert RULES["halving"](3.0, [1.0, 2.0, 3.0]) is not None


def test_a_loss_at_a_rung_is_interpolated_and_one_before_the_first_validation_is_none() -> None:
    judge = Pruner(Search.model_validate({"pruner": "median", "rungs": 3}), 800.0)
    assert judge.rungs == (100.0, 200.0, 400.0)
    judge.add(0, Experiment(), StageGraph((_stage(0),)))
    judge.handle(_progress(_stage(0), 150.0, 4.0))
    judge.handle(_progress(_stage(0), 350.0, 2.0))
    judge.judge()
    assert judge.losses(0) == {1: pytest.approx(3.5)}
    assert not judge.is_judged(0)
    judge.end(0)
    judge.judge()
    assert judge.is_judged(0)


def test_trials_whose_losses_mean_something_else_are_not_compared() -> None:
    base = Experiment()
    wider = apply_settings(base, {"model.hidden_size": 128, "model.head.num_blocks": 3})
    others = [
        apply_settings(base, settings)
        for settings in ({"model.kind": "token"}, {"model.chunk_size": 2}, {"model.head.alpha": 1.5})
    ]
    judge = Pruner(Search.model_validate({"pruner": "halving", "rungs": 1}), 100.0)
    for number, experiment in enumerate((base, *others, wider)):
        judge.add(number, experiment, StageGraph((_stage(number),)))
        judge.handle(_progress(_stage(number), 50.0, 1.0 + number))
    judge.judge()
    assert [number for number in range(5) if judge.verdict(number)] == [4]


def test_what_an_earlier_driver_ended_takes_part_as_recorded() -> None:
    judge = Pruner(Search.model_validate({"pruner": "halving", "rungs": 2}), 100.0)
    graph = StageGraph((_stage(0),))
    judge.add_ended(0, Experiment(), graph, {0: 5.0}, pruned=True)
    judge.add_ended(1, Experiment(), graph, {0: 1.0, 1: 1.0}, pruned=False)
    judge.add(2, Experiment(), StageGraph((_stage(2),)))
    for flops, loss in ((25.0, 3.0), (50.0, 2.0)):
        judge.handle(_progress(_stage(2), flops, loss))
    judge.judge()
    assert "1 of 1 trials are better" in str(judge.verdict(2)), "at the second rung the pruned trial is not a peer"
    assert judge.losses(2) == {0: 3.0, 1: 2.0}


def test_a_pruner_needs_one_objective() -> None:
    objectives = [{"metric": "brierlm"}, {"metric": "training_flops", "direction": "minimize"}]
    with pytest.raises(ValidationError, match="pruner median needs one objective, not 2"):
        Search.model_validate({"pruner": "median", "objectives": objectives})


def _pruned_study(tiny_study: Callable[..., Study]) -> Study:
    """Token models of which the second learns nothing."""
    rates = [2e-3, 1e-9, 2e-2]
    base = tiny_study().model.model_dump()
    training = base["training"] | {"num_steps": 40, "validate_every": 4, "checkpoint_every": 8}
    search = {
        "parameters": [{"name": "model.training.learning_rate", "values": rates}],
        "pruner": "halving",
        "rungs": 2,
    }
    return tiny_study(search=search, model=base | {"kind": "token", "chunk_size": 1, "training": training})


def test_a_study_stops_the_worse_trial(
    run: Callable[..., list[Any]], store: Any, tiny_study: Callable[..., Study], recorder: Any
) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from pipelines.store.inventory import stored_stages
    from pipelines.store.study_folder import study_folder

    study = _pruned_study(tiny_study)
    listener = recorder()
    outcomes = run(study, listener)
    assert [outcome.state for outcome in outcomes] == ["complete", "pruned", "complete"]
    assert "training FLOPs: 1 of 1 trials are better" in str(outcomes[1].error)

    journal = study_folder(study, store) / "optuna.journal"
    trials = optuna.load_study(
        study_name=study.name, storage=JournalStorage(JournalFileBackend(str(journal)))
    ).get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert sorted(trials[0].intermediate_values) == [0, 1]
    assert sorted(trials[1].intermediate_values) == [0]

    begun = [stage for stage in stored_stages(store) if stage.state != "done"]
    dropped = _stages(listener.events, StageDropped)
    if "language_model" in dropped:
        assert [(stage.kind, stage.state) for stage in begun] == [("language_model", "abandoned")]
    assert "evaluation" in dropped

    again = recorder()
    assert [(o.state, o.error, o.values) for o in run(study, again)] == [(o.state, o.error, o.values) for o in outcomes]
    assert _stages(again.events, StageFinished) == []
    assert len(_stages(again.events, StageCached)) == 6


def _stages(events: Iterable[Event], kind: type) -> list[str]:
    return [event.stage.kind for event in events if isinstance(event, kind)]
