"""The models of each kind, K and head, as points of score against compute."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipelines.results.answers import Basis, FamilyPoint
from pipelines.results.entry import Entry, compute_of
from pipelines.results.pairing import mean_of
from pipelines.results.ranks import SIGNIFICANT
from pipelines.results.trajectories import Point, Trajectory

Key = tuple[str, int, str | None]
"""Kind, K, head."""
SAME_BUDGET = 0.02
"""Training FLOPs that differ by less, relatively, are one budget: they are counted in whole steps."""
FEWEST_SNAPSHOTS = 3
CLIPPED = "a score clipped to 0, below which BrierLM tells nothing apart"
NOT_BEST = "another model of the family scores higher with its only budget"
NO_NUMBER = "a score that is no number"
BEATEN = "another model of the family scores significantly higher for no more training"


@dataclass(frozen=True)
class Measured:
    """A point with what its error consists of."""

    point: FamilyPoint
    seeds: int
    seed_error: float | None
    """Part of the error due to seeds; None for one seed, of which it is not known."""
    replicates: str
    """As in :class:`~pipelines.results.entry.Entry`."""

    @property
    def document_error(self) -> float:
        whole, seeds = self.point.standard_error, self.seed_error or 0.0
        return math.sqrt(max(whole**2 - seeds**2, 0.0))


@dataclass(frozen=True)
class Models:
    """A family's points, cheapest training first, and where they are from."""

    key: Key
    name: str
    basis: Basis
    measured: tuple[Measured, ...]

    @property
    def used(self) -> tuple[Measured, ...]:
        return tuple(one for one in self.measured if one.point.is_used)


def families_of(entries: Sequence[Entry], trajectories: Iterable[Trajectory]) -> list[Models]:
    """The families among the pooled rows ``entries``: the token model first, CALM by K and head, then others by K.

    All rows have known FLOPs: there is no point of score against compute without.

    Finished models at several budgets are what a law is fitted to. Where the reference has one budget only and models
    were kept along its training, those stand for all families that have them.
    """
    rows: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        rows[entry.kind, entry.chunk_size, entry.head].append(entry)
    keys = sorted(rows, key=_sort_key)
    several_heads = len({key[2] for key in keys if key[0] == "calm"}) > 1
    finished = {key: _best_of_one_budget(_usable([_measured(entry) for entry in rows[key]])) for key in keys}
    along = _along_training(rows, trajectories)
    prefers_budgets = not keys or budgets(finished[keys[0]]) > 1 or keys[0] not in along
    families = []
    for key in keys:
        name = rows[key][0].family + (f" {key[2]}" if several_heads and key[2] else "")
        if not prefers_budgets and key in along:
            families.append(Models(key, name, "trajectory", tuple(along[key])))
        else:
            basis: Basis = "budgets" if budgets(finished[key]) > 1 else "single"
            families.append(Models(key, name, basis, tuple(finished[key])))
    return families


def _sort_key(key: Key) -> tuple[bool, bool, str, int, bool, str]:
    kind, chunk_size, head = key
    return kind != "token", kind != "calm", kind, chunk_size, head != "energy", head or ""


def budgets(measured: Iterable[Measured]) -> int:
    """How many different training budgets the usable ones among ``measured`` have."""
    count, last = 0, 0.0
    for flops in sorted(one.point.training_flops for one in measured if one.point.is_used):
        if flops > last * (1 + SAME_BUDGET):
            count, last = count + 1, flops
    return count


def _measured(entry: Entry) -> Measured:
    cost = compute_of(entry)
    point = FamilyPoint(entry.label, entry.brierlm, entry.brierlm_se, cost.training, cost.autoencoder, cost.inference)
    return Measured(point, len(entry.seeds) or 1, entry.seed_error, entry.replicates)


def _usable(measured: Sequence[Measured]) -> list[Measured]:
    """In order of training FLOPs, those that the law must not go by marked with the reason.

    A family stands for what can be reached with its K and head, so a model that another one of the family beats
    beyond the errors for no more training says nothing about it.
    """

    def reason(one: Measured) -> str:
        mine = one.point
        if unfit := _unfit(mine):
            return unfit
        for other in (found.point for found in measured):
            error = math.hypot(mine.standard_error, other.standard_error)
            cheaper = other.training_flops <= mine.training_flops * (1 + SAME_BUDGET)
            if cheaper and other.score - mine.score > SIGNIFICANT * error and not _unfit(other):
                return BEATEN
        return ""

    ordered = sorted(measured, key=lambda one: (one.point.training_flops, one.point.score, one.point.label))
    return [_judged(one, reason(one)) for one in ordered]


def _best_of_one_budget(measured: list[Measured]) -> list[Measured]:
    """With one budget there is no curve, and one model stands for the family: its best."""
    used = [one for one in measured if one.point.is_used]
    if len(used) < 2 or budgets(used) > 1:
        return measured
    best = max(used, key=lambda one: (one.point.score, one.point.label))
    return [_judged(one, NOT_BEST) if one in used and one is not best else one for one in measured]


def _unfit(point: FamilyPoint) -> str:
    """Why nothing can be read off a point; empty where something can."""
    if not (math.isfinite(point.score) and math.isfinite(point.standard_error)):
        return NO_NUMBER
    # BrierLM is 0 where a component is not positive; the true score may be anything below the measurable.
    return CLIPPED if point.score == 0 else ""


def _judged(measured: Measured, reason: str) -> Measured:
    return dataclasses.replace(measured, point=dataclasses.replace(measured.point, is_used=not reason, reason=reason))


def _along_training(rows: dict[Key, list[Entry]], trajectories: Iterable[Trajectory]) -> dict[Key, list[Measured]]:
    """The models kept along the trainings of each family that has enough of them; seeds of one configuration pooled."""
    matches = [(_owner(trajectory), trajectory) for trajectory in dict.fromkeys(trajectories)]
    found: dict[Key, list[Measured]] = {}
    for key, entries in rows.items():
        measured: list[Measured] = []
        for entry in entries:
            trainings = [trajectory for owns, trajectory in matches if owns(entry)]
            distinct = list({trajectory.points: trajectory for trajectory in trainings}.values())
            steps = {len(trajectory.points) for trajectory in distinct}
            if len(distinct) > 1 and len(steps) == 1:
                measured += [
                    _snapshot(entry, at, n) for n, at in enumerate(zip(*(t.points for t in distinct), strict=True))
                ]
            else:
                measured += [_snapshot(entry, (at,), n) for t in distinct for n, at in enumerate(t.points)]
        last = max((one.point.training_flops for one in measured), default=0.0)
        measured = [
            dataclasses.replace(
                one,
                point=dataclasses.replace(one.point, is_finished=one.point.training_flops >= last * (1 - SAME_BUDGET)),
            )
            for one in measured
        ]
        usable = [_judged(one, _unfit(one.point)) for one in measured]
        if sum(one.point.is_used for one in usable) >= FEWEST_SNAPSHOTS:
            usable = [one for one in usable if one.point.reason != NO_NUMBER]
            found[key] = sorted(usable, key=lambda one: (one.point.training_flops, one.point.score, one.point.label))
    return found


def _owner(trajectory: Trajectory) -> Callable[[Entry], bool]:
    """Whether a row, pooled or not, stands for the training of ``trajectory``."""

    def owns(entry: Entry) -> bool:
        if trajectory.comparable[0] != entry.protocol_hash:
            return False
        if trajectory.model_identity:
            return trajectory.model_identity in (entry.model_identities or (entry.model_identity,))
        return trajectory.label == entry.label and (bool(entry.seeds) or trajectory.trial == entry.trial)

    return owns


def _snapshot(entry: Entry, points: Sequence[Point], number: int) -> Measured:
    """The models of one or several seeds at the same place of their trainings."""
    from pipelines.results.pooling import joint

    score, error, seed_error = points[0].brierlm, points[0].brierlm_se, None
    replicates = [point.replicates if point.brierlm > 0 else "" for point in points]
    if len(points) > 1:
        score, error, seed_error = joint([(point.brierlm, point.brierlm_se) for point in points], replicates)
    flops, cost = fmean(point.training_flops for point in points), compute_of(entry)
    point = FamilyPoint(
        f"{entry.label}, snapshot {number + 1}",
        score,
        error,
        flops,
        cost.autoencoder,
        cost.inference,
        is_finished=False,
    )
    return Measured(point, len(points), seed_error, mean_of(replicates))
