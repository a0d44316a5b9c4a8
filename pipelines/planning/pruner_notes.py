"""What a plan says of a pruner that could stop nothing, in words."""

from __future__ import annotations

from pipelines.planning.plan import Plan


def pruner_notes(plan: Plan) -> list[str]:
    """A sentence where no trial is validated by the last rung, half of its training: nothing is compared then
    (:mod:`pipelines.search.pruning`)."""
    search = plan.study.search
    if search.pruner == "none":
        return []
    trainings = [
        (trial.price.model.steps, trial.experiment.model.training.validate_every)
        for trial in (plan.drawn or plan.trials)
        if trial.price is not None and trial.experiment is not None
    ]
    if not trainings or any(2 * validate_every <= steps for steps, validate_every in trainings):
        return []
    steps, validate_every = trainings[0]
    every_rung, last_rung = steps >> search.rungs, steps // 2
    way = f"; model.training.validate_every={every_rung or last_rung} validates in time" if last_rung else ""
    return [
        f"search.pruner={search.pruner} can stop no trial: it compares validation losses until half of a training, and "
        f"of {steps:,} steps none is validated by then (model.training.validate_every={validate_every}){way}."
    ]
