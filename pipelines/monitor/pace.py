"""How long the rest of a study takes, judged by what this driver has seen run, and by the plan before it has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pipelines.monitor.stage_state import StageState


@dataclass
class Sum:
    """Seconds and count of some stages of one kind."""

    count: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    expected: float = 0.0
    """Seconds, by the plan; it tells them of ``num_expected`` stages."""
    num_expected: int = 0

    def add(self, state: StageState, sign: int = 1) -> None:
        if state.expected_s is not None:
            self.expected += sign * state.expected_s
            self.num_expected += sign
        self.count += sign
        self.flops += sign * state.planned_flops
        self.seconds += sign * state.wall_time_s


@dataclass
class Pace:
    """Seconds per FLOP of trainings and seconds of other stages, by kind of stage."""

    parallel: int = 1
    """The most stages that ran at once."""
    ended: dict[str, Sum] = field(default_factory=dict)
    waiting: dict[str, Sum] = field(default_factory=dict)

    def note(self, sums: dict[str, Sum], state: StageState, sign: int = 1) -> None:
        """Add a stage to ``ended`` or ``waiting``, or take it out."""
        sums.setdefault(state.kind, Sum()).add(state, sign)

    def remaining_s(
        self, running: Collection[StageState], share_known: float = 1.0
    ) -> tuple[float | None, tuple[str, ...]]:
        """Seconds to the end, and the kinds that are missing in them since nothing is known of theirs.

        Stages are taken to run ``parallel`` at a time; what runs now is not over before the longest of it. None where
        nothing is known of anything that is left.

        Args:
            share_known: of the trials still to end, the share whose stages wait or run; the others are taken to need
                as much.
        """
        lefts = [(state.kind, self._left_s(state, running)) for state in running]
        longest = max((left for _, left in lefts if left is not None), default=0.0)
        for kind, waiting in self.waiting.items():
            if waiting.count:
                lefts.append((kind, self._whole_s(waiting, kind, running)))
        known = [left for _, left in lefts if left is not None]
        unknown = tuple(sorted({kind for kind, left in lefts if left is None}))
        if not known and (lefts or share_known < 1.0):
            return None, unknown
        return max(longest, sum(known) / max(share_known, 1e-9) / self.parallel), unknown

    def _left_s(self, state: StageState, running: Collection[StageState]) -> float | None:
        if state.remaining_s is not None:
            return state.remaining_s
        alone = Sum()
        alone.add(state)
        whole = self._whole_s(alone, state.kind, running)
        return None if whole is None else whole * (1.0 - (state.fraction or 0.0))

    def _whole_s(self, stages: Sum, kind: str, running: Collection[StageState]) -> float | None:
        """All of ``stages``: as others of their kind went, else as the plan expects."""
        pace = self._pace(kind, running)
        if pace is not None:
            return _at(pace, stages)
        return stages.expected if stages.num_expected == stages.count else None

    def _pace(self, kind: str, running: Collection[StageState]) -> Sum | None:
        """What ended of a kind; before the first has ended, what those that run will have taken."""
        ended = self.ended.get(kind)
        if ended is not None and ended.count:
            return ended
        expected = Sum()
        for state in running:
            left, fraction = state.remaining_s, state.fraction
            if state.kind == kind and left is not None and fraction is not None and fraction < 1.0:
                expected.count += 1
                expected.flops += state.planned_flops
                expected.seconds += left / (1.0 - fraction)
        return expected if expected.count else None


def _at(pace: Sum, stages: Sum) -> float:
    if pace.flops and stages.flops:
        return pace.seconds / pace.flops * stages.flops
    return pace.seconds / pace.count * stages.count
