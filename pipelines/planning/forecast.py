"""What a run is expected to take, and afterwards how near that was."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from pipelines.common.numbers import duration
from pipelines.execution.events import Event, StageCached, StageFinished, StudyStarted
from pipelines.planning.calibration import load_calibration, save_calibration
from pipelines.planning.estimate import Estimate, estimate
from pipelines.planning.limit import Limit, check_limit
from pipelines.planning.machines import THIS_MACHINE, Machine, local_gpus, machine_named
from pipelines.planning.measuring import MeasuringFailed, expected_seconds, measure, worth_measuring
from pipelines.planning.plan import Plan, workloads_in
from pipelines.planning.planner import plan_study
from pipelines.planning.pruner_notes import pruner_notes
from pipelines.planning.stage_costs import Speeds
from pipelines.store.estimate_record import ComparedTime, EstimateRecord, StageTime, save_plan
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study
from pipelines.study.workload import Speed, Workload

WORTH_MEASURING_S = 120.0
"""A run that is expected to take less is not worth a measurement that nobody asked for."""
BUSY = 1.3
"""How much longer than its own time a measurement may take before that is told."""

Notify = Callable[[str], None]


def default_machines(execution: Execution) -> list[str]:
    """Where a study is priced that names no machine: here, or on as many H100 as a training takes where it wants GPUs
    that are not here."""
    if execution.gpus_per_stage > 0 and execution.device != "cpu" and not local_gpus():
        count = ceil(execution.gpus_per_stage * execution.workers) if execution.workers > 1 else 1
        return ["h100" if count == 1 else f"h100x{count}"]
    return [THIS_MACHINE]


class SpeedCache:
    """Speeds on one machine: what its cache holds, and measurements added to it when they are asked for."""

    def __init__(self, machine: Machine, notify: Notify, cache: Path | None = None) -> None:
        self.machine = machine
        self.calibration = load_calibration(machine, cache)
        self._notify = notify
        self._cache = cache

    def measure(self, workloads: Sequence[Workload], again: bool = False) -> None:
        """Measure those of ``workloads`` that are not known (or all), and keep it; too large ones are left out.

        Raises:
            MeasuringFailed: it cannot be measured.
        """
        wanted = worth_measuring([s for s in workloads if again or not self.calibration.has(s)], self.machine)
        if not wanted or not self.machine.is_this:
            return
        at_once = self.machine.parallelism if self.machine.device == "cpu" else 1
        self._notify(
            f"measuring the speed of {self.machine.label}: training steps and scoring of {len(wanted)} models, "
            f"{at_once} at once; about {duration(expected_seconds(wanted, self.machine))}, kept for later"
        )
        self.calibration = save_calibration(self.machine, measure(wanted, self.machine), self._cache)
        if self.calibration.busy > BUSY:
            self._notify(
                f"something else keeps this machine busy: the measurement took {self.calibration.busy:.1f} times as "
                "long as it would have otherwise. Estimates are those of an idle machine"
            )

    def measured(self, workload: Workload) -> Speed:
        """The speed of ``workload``, measured now if it has not been."""
        if not self.calibration.has(workload):
            self.measure([workload])
        return Speeds(self.machine, self.calibration).of(workload)

    def known(self, workload: Workload) -> Speed:
        """The speed of ``workload`` as far as it is known."""
        return Speeds(self.machine, self.calibration).of(workload)


@dataclass(frozen=True)
class Expected:
    """What one kind of stages took, or all."""

    count: int
    estimated_s: float
    measured_s: float
    elsewhere: int = 0
    """Stages of the estimate that other drivers ran: the two times are then not of the same work."""
    not_estimated: int = 0
    """Stages whose time was not known before, and is in ``measured_s`` alone."""

    def record(self) -> ComparedTime:
        """As ``estimate.json`` keeps it."""
        is_like = self.measured_s > 0 and not self.elsewhere and not self.not_estimated
        return ComparedTime(
            count=self.count,
            estimated_s=self.estimated_s,
            measured_s=self.measured_s,
            error=self.estimated_s / self.measured_s - 1 if is_like else None,
            not_estimated=self.not_estimated,
        )

    def __str__(self) -> str:
        if self.measured_s <= 0:
            return f"{duration(self.estimated_s)} estimated"
        if self.elsewhere:
            return (
                f"{duration(self.measured_s)} taken; other drivers ran {self.elsewhere} of the stages for which "
                f"{duration(self.estimated_s)} were estimated in all"
            )
        if self.not_estimated == self.count:
            return f"{duration(self.measured_s)} taken, not known before"
        if self.not_estimated:
            left_out = f"{self.not_estimated} {'stage' if self.not_estimated == 1 else 'stages'}"
            return (
                f"{duration(self.estimated_s)} estimated without {left_out} whose time was not known before, "
                f"{duration(self.measured_s)} taken with {'it' if self.not_estimated == 1 else 'them'}"
            )
        return f"{duration(self.estimated_s)} estimated, {duration(self.measured_s)} taken{self._difference}"

    @property
    def _difference(self) -> str:
        """How wrong the estimate was, in words: a sign alone would not say which of the two it is of."""
        percent = round(100 * (self.estimated_s / self.measured_s - 1))
        if percent == 0:
            return ""
        return f" (estimate {abs(percent)} % too {'high' if percent > 0 else 'low'})"


@dataclass(frozen=True)
class Outcome:
    """Estimate against outcome of one run."""

    total: Expected
    kinds: dict[str, Expected]

    def lines(self) -> list[str]:
        """For people: the total, and the kinds of stages that took long."""
        found = [str(self.total)]
        for kind, expected in sorted(self.kinds.items(), key=lambda item: -item[1].measured_s):
            if max(expected.measured_s, expected.estimated_s) >= 1.0:
                number = f"{expected.count} x " if expected.count > 1 else ""
                found.append(f"  {number}{kind.replace('_', ' ')}: {expected}")
        return found


class Forecast:
    """The estimate of one run, made before it and compared with it afterwards; a listener of the study."""

    def __init__(self, plan: Plan, estimate: Estimate, speed_of: Callable[[Workload], Speed]) -> None:
        # Times are kept by identity: the plan of two thousand trials is a hundred megabytes.
        self._plan: Plan | None = plan
        self._estimate: Estimate | None = estimate
        self._machine, self._calibrated, self._total_s = estimate.machine, estimate.calibrated, estimate.seconds
        self._expected_s = {
            stage.identity: (stage.kind, None if estimate.costs[stage].seconds is None else span.end - span.start)
            for stage, span in estimate.spans.items()
        }
        self.speed_of = speed_of
        """Measures a model that is not known yet."""
        self.impossible = plan.impossible
        """Trials that cannot run."""
        self._begun = time.monotonic()
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._stages: dict[str, StageTime] = {}
        self._elsewhere: set[str] = set()
        """Identities of stages of the estimate that another driver ran."""

    @property
    def runs_anything(self) -> bool:
        """Whether some stage is not in the store yet."""
        return bool(self._expected_s)

    def handle(self, event: Event) -> None:
        if isinstance(event, StudyStarted):
            # A full disk will end the study by itself, and in better words.
            with suppress(OSError):
                self._write_plan(event.folder)
            self._plan = self._estimate = None
        elif isinstance(event, StageCached) or (isinstance(event, StageFinished) and event.elsewhere):
            if event.stage.identity in self._expected_s:
                self._elsewhere.add(event.stage.identity)
        elif isinstance(event, StageFinished):
            stage = event.stage
            self._seconds[stage.kind].append(event.wall_time_s)
            _, estimated_s = self._expected_s.get(stage.identity, (stage.kind, None))
            self._stages[stage.identity] = StageTime(
                kind=stage.kind, label=str(stage), estimated_s=estimated_s, measured_s=event.wall_time_s
            )

    def finish(self, folder: Path) -> Outcome | None:
        """Compare, and write ``estimate.json``; None where nothing was run here."""
        if not self._stages:
            return None
        expected: dict[str, float] = defaultdict(float)
        for identity, (kind, seconds) in self._expected_s.items():
            if identity not in self._elsewhere:
                expected[kind] += seconds or 0.0
        unknown = Counter(stage.kind for identity, stage in self._stages.items() if self._is_unknown(identity, stage))
        kinds = {
            kind: Expected(len(taken), expected.get(kind, 0.0), sum(taken), not_estimated=unknown[kind])
            for kind, taken in self._seconds.items()
        }
        taken_s = time.monotonic() - self._begun
        total = Expected(len(self._stages), self._total_s, taken_s, len(self._elsewhere), unknown.total())
        outcome = Outcome(total, kinds)
        record = EstimateRecord(
            machine=self._machine.to_dict(),
            calibrated=self._calibrated or None,
            total=outcome.total.record(),
            kinds={kind: each.record() for kind, each in kinds.items()},
            stages=self._stages,
        )
        record.save(folder)
        return outcome

    def _is_unknown(self, identity: str, stage: StageTime) -> bool:
        """Whether the time of a stage is in no estimate. Of a search whose trials nobody knew, others of its kind were
        estimated in its place."""
        if identity in self._expected_s:
            return stage.estimated_s is None
        known = {kind for kind, seconds in self._expected_s.values() if seconds is not None}
        return stage.kind not in known

    def _write_plan(self, folder: Path) -> None:
        """Keep the plan beside the study's results, unless there is nothing to run."""
        if self._plan is not None and self._estimate is not None and self._expected_s:
            save_plan(folder, {**self._plan.to_dict(), "estimates": [self._estimate.to_dict()]})


def forecast(
    study: Study,
    store: Store,
    notify: Notify,
    limit: Limit | None = None,
    machine_name: str = "local",
    may_measure: bool = True,
) -> Forecast:
    """Plan and estimate a run that is about to begin.

    This machine is measured first where the run is long enough to be worth it, and always where ``equal-time`` needs
    it; what cannot be measured is estimated from assumed rates.

    Raises:
        ConfigurationError: the price cannot be told from the configuration.
        OverBudget: it would cost more than ``limit``.
        MeasuringFailed: ``equal-time`` needs a measurement that failed.
    """
    book = SpeedCache(machine_named(machine_name, study.execution), notify)
    plan = plan_study(study, store, book.known)
    expected = estimate(plan, store, book.machine, book.calibration)
    needs_time = plan.budget is not None and plan.budget.equal == "time"
    is_here = book.machine.is_this and study.execution.address is None
    long = expected.seconds > WORTH_MEASURING_S or (limit is not None and limit.unit == "time")
    if expected.spans and is_here and (needs_time or (may_measure and long)):
        try:
            book.measure(workloads_in(plan, only_to_run=True))
        except MeasuringFailed as error:
            if needs_time:
                raise
            notify(f"{error}; the estimate rests on assumed rates")
        plan = plan_study(study, store, book.known)
        expected = estimate(plan, store, book.machine, book.calibration)
    if limit is not None:
        check_limit(limit, plan, expected)
    for note in pruner_notes(plan):
        notify(note)
    return Forecast(plan, expected, book.measured)
