"""BrierLM against cross-entropy, over the models that trainings kept: the points and their correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.json_text import parse_json_text
from pipelines.common.numbers import printable

if TYPE_CHECKING:
    from pipelines.store.store import Store
    from pipelines.study.trial import TrialOutcome

NAME = "trajectory"


@dataclass(frozen=True)
class Point:
    """A model somewhere along its training. Cross-entropies are nats per token."""

    training_flops: float
    cross_entropy: float
    cross_entropy_se: float
    brierlm: float
    brierlm_se: float
    replicates: str = ""
    """The score with each group of documents left out (:mod:`evals.replicates`), where it was kept."""


@dataclass(frozen=True)
class Trajectory:
    """One training's models, from the first to the finished one."""

    trial: int
    label: str
    cross_entropy_kind: str
    """``exact``, or ``bound``: for chunk models the cross-entropy is bounded from above."""
    comparable: tuple[str, str]
    """Protocol of the scores and identity of the text behind the cross-entropies."""
    points: tuple[Point, ...]
    model_identity: str = ""
    """Identity of the finished model, as in its leaderboard row."""

    @property
    def scored(self) -> tuple[Point, ...]:
        """Models whose BrierLM is not clipped to 0, below which it tells nothing apart."""
        return tuple(point for point in self.points if point.brierlm > 0)


def trajectories_of(outcomes: Iterable[TrialOutcome]) -> list[Trajectory]:
    """The trajectories of the finished trials that kept models along their training."""
    found = []
    for outcome in outcomes:
        result = outcome.results.get(NAME)
        if result is not None:
            identity = "" if outcome.graph is None else outcome.graph["language_model"].identity
            found.append(_trajectory(outcome.number, outcome.label, result, identity))
    return found


def correlations(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """By label of the trial, and ``all`` of those that share protocol and text: :meth:`Correlation.to_dict`, or why
    there is none."""
    # A model that several trials share is one.
    trajectories = list({each.model_identity or (each.trial, each.label): each for each in trajectories}.values())
    groups = {trajectory.label: trajectory.scored for trajectory in trajectories}
    if len(trajectories) > 1 and len({trajectory.comparable for trajectory in trajectories}) == 1:
        groups["all"] = tuple(point for trajectory in trajectories for point in trajectory.scored)
    return {label: _correlation(points) for label, points in groups.items()}


def read_trajectories(folder: Path) -> list[Trajectory]:
    """What :func:`write_trajectories` left in a study's ``folder``; nothing where it left nothing that can be read."""
    try:
        rows = parse_json_text((folder / f"{NAME}.json").read_text(encoding="utf-8"))["trajectories"]
        return [
            Trajectory(
                row["trial"],
                row["label"],
                row["cross_entropy_kind"],
                (row["protocol_hash"], row.get("cross_entropy_text", "")),
                tuple(Point(**point) for point in row["points"]),
                row.get("model_identity", ""),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def stored_trajectories(store: Store) -> list[Trajectory]:
    """The trajectories of all studies in ``store``."""
    return [trajectory for folder in store.studies.folders() for trajectory in read_trajectories(folder)]


def summary(trajectories: Sequence[Trajectory]) -> list[str]:
    """One line for people per correlation."""
    kinds = {trajectory.label: trajectory.cross_entropy_kind for trajectory in trajectories}
    lines = []
    for label, found in correlations(trajectories).items():
        name = f"{printable(label)}{' (bound)' if kinds.get(label) == 'bound' else ''}"
        if "why" in found:
            lines.append(f"{name}: {found['why']}")
            continue
        parts = [f"{kind.capitalize()} {_with_interval(found, kind)}" for kind in ("pearson", "spearman")]
        lines.append(f"{name}: {', '.join(parts)}; {found['num_pairs']} models")
    return lines


def _trajectory(number: int, label: str, result: Mapping[str, Any], model_identity: str) -> Trajectory:
    points = tuple(
        Point(
            training_flops=point["training_flops"],
            cross_entropy=point["cross_entropy"]["value"],
            cross_entropy_se=point["cross_entropy"]["standard_error"],
            brierlm=point["score"]["brierlm"],
            brierlm_se=point["score"]["brierlm_se"],
            replicates=point.get("replicates", ""),
        )
        for point in result["points"]
    )
    kind = result["points"][-1]["cross_entropy"]["kind"]
    return Trajectory(
        number, label, kind, (result["protocol_hash"], result["cross_entropy_text"]), points, model_identity
    )


def _correlation(points: Sequence[Point]) -> dict[str, Any]:
    from evals.correlation import correlate

    try:
        return correlate([p.brierlm for p in points], [p.cross_entropy for p in points]).to_dict()
    except ValueError as error:
        return {"why": str(error), "num_pairs": len(points)}


def _with_interval(found: Mapping[str, Any], kind: str) -> str:
    low, high = found[f"{kind}_interval"]
    return f"{found[kind]:.3f} [{low:.3f}, {high:.3f}]"
