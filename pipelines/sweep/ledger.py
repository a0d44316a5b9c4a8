"""The trials of a study as Optuna keeps them: asked, told, and found again by the next driver.

Results never depend on who was faster. A grid and a random search propose trial n from n alone; TPE proposes trial n
once trials 0 to n - ``concurrent_trials`` are told, in that order and no further, whatever runs where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calm_bench.seeding import derive
from calm_bench.study_config import Search
from pipelines.store.lease import locked
from pipelines.sweep.space import Point, distributions, grid_points

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 6
"""Trials of ``tpe`` that are drawn at random before the model of the space is worth asking."""


AskedState = Literal["open", "complete", "failed", "pruned"]


@dataclass(frozen=True)
class Asked:
    """A trial as the ledger knows it."""

    number: int
    point: Point
    state: AskedState
    error: str | None = None
    """Why it failed or was pruned."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """Validation loss by rung of the pruner, as it was told."""


@dataclass(frozen=True)
class Told:
    """The end of a trial: its objectives, or why it has none."""

    values: Sequence[float] | None = None
    error: str | None = None
    pruned: bool = False
    """Stopped because it was worse than others, and not by an error."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """By how much each is broken; zero or less is kept."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """Validation loss by rung of the pruner."""


class Ledger:
    """One study's journal. Use from one thread; several drivers may have the same journal open.

    Args:
        path: the journal file, made if missing.
        seed: of the sampler.
        retry_failed: propose the points of failed trials once more, as new trials.
    """

    def __init__(self, path: Path, name: str, search: Search, seed: int, retry_failed: bool = False) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._guard = path.with_name(f".{path.name}.guard")
        self._search = search
        self._seed = seed
        self._space = distributions(search)
        self._untold: dict[int, Told] = {}
        self._given: set[int] = set()
        with locked(self._guard):
            _drop_half_line(path)
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                study_name=name,
                directions=[objective.direction for objective in search.objectives],
                load_if_exists=True,
            )
            if search.sampler == "grid":
                for point in grid_points(search):
                    self._study.enqueue_trial(point, skip_if_exists=True)
            if retry_failed:
                self._propose_failed_again()
            self._start_waiting()
            self._complete_half_asked()
            self._ask()

    @property
    def num_trials(self) -> int:
        """How many trials the study will have, a retried one counted once."""
        return len(grid_points(self._search)) if self._search.sampler == "grid" else self._search.num_trials or 0

    def new_trials(self) -> list[Asked]:
        """The trials, by number, that no earlier call has given out.

        The first call gives those of earlier drivers too; later ones those that other drivers of the same study asked
        meanwhile. A failed trial that was proposed again is given by its latest try.
        """
        new = [asked for asked in self._latest() if asked.number not in self._given]
        self._given.update(asked.number for asked in new)
        return new

    def tell(self, number: int, told: Told) -> None:
        """Record what became of a trial."""
        self._untold[number] = told
        for ready in list(self._ready()):
            with locked(self._guard):
                self._record(ready, self._untold.pop(ready))
                # Before the next is told: a proposal must not depend on who happened to finish together.
                self._ask()

    def _latest(self) -> list[Asked]:
        latest: dict[int, Asked] = {}
        for trial in self._frozen():
            latest[trial.user_attrs.get("retry_of", trial.number)] = _asked(trial)
        return sorted(latest.values(), key=lambda asked: asked.number)

    def _ask(self) -> None:
        """Ask Optuna for as many trials as may be under way. The guard must be held."""
        while True:
            trials = self._frozen()
            told = sum(1 for trial in trials if trial.state.is_finished())
            retries = sum(1 for trial in trials if "retry_of" in trial.user_attrs)
            if len(trials) >= self.num_trials + retries:
                return
            if self._search.sampler == "tpe" and len(trials) >= told + self._search.concurrent_trials:
                return
            self._study.sampler = self._sampler(len(trials))
            self._study.ask(self._space)

    def _ready(self) -> Iterator[int]:
        """Numbers of the trials that may be told: with ``tpe``, those before which no trial is open."""
        if self._search.sampler != "tpe":
            yield from sorted(self._untold)
            return
        for trial in self._frozen():
            if trial.state.is_finished():
                self._untold.pop(trial.number, None)
            elif trial.number in self._untold:
                yield trial.number
            else:
                return

    def _record(self, number: int, told: Told) -> None:
        import optuna
        from optuna.trial import TrialState

        frozen = self._frozen()[number]
        if frozen.state.is_finished():
            return
        # All of it before the state, so that no trial is ever seen as ended without its reason.
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        for rung, loss in sorted(told.rungs.items()):
            if rung not in frozen.intermediate_values:
                trial.report(loss, rung)
        for name, excess in told.constraints.items():
            trial.set_constraint(name, excess)
        if told.values is not None:
            self._study.tell(number, list(told.values), skip_if_finished=True)
            return
        trial.set_user_attr("error", told.error or "unknown")
        state = TrialState.PRUNED if told.pruned else TrialState.FAIL
        self._study.tell(number, state=state, skip_if_finished=True)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of trial ``number``; seeded by it, so that a restarted driver proposes what the first would."""
        import optuna

        seed = derive(self._seed, "search", number) % 2**32
        if self._search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return optuna.samplers.RandomSampler(seed=seed)

    def _propose_failed_again(self) -> None:
        for asked in self._latest():
            if asked.state == "failed":
                first = self._frozen()[asked.number].user_attrs.get("retry_of", asked.number)
                self._study.enqueue_trial(asked.point, user_attrs={"retry_of": first})

    def _start_waiting(self) -> None:
        """Start what was enqueued, now or by a driver that was killed before it could."""
        from optuna.trial import TrialState

        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask(self._space)

    def _complete_half_asked(self) -> None:
        """Draw what is missing of a running trial whose driver was killed between two parameters."""
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        for frozen in self._frozen():
            if frozen.state.is_finished() or frozen.params.keys() == self._space.keys():
                continue
            self._study.sampler = self._sampler(frozen.number)
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
            for name, space in self._space.items():
                match space:
                    case CategoricalDistribution():
                        trial.suggest_categorical(name, space.choices)
                    case IntDistribution():
                        trial.suggest_int(name, space.low, space.high, log=space.log)
                    case FloatDistribution():
                        trial.suggest_float(name, space.low, space.high, log=space.log)

    def _frozen(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _asked(trial: optuna.trial.FrozenTrial) -> Asked:
    from optuna.trial import TrialState

    states: dict[TrialState, AskedState] = {
        TrialState.COMPLETE: "complete",
        TrialState.FAIL: "failed",
        TrialState.PRUNED: "pruned",
    }
    state: AskedState = states.get(trial.state, "open")
    error = str(trial.user_attrs.get("error", "unknown")) if state in ("failed", "pruned") else None
    return Asked(trial.number, dict(trial.params), state, error, dict(trial.intermediate_values))


def _drop_half_line(path: Path) -> None:
    """Cut off a last line without its end, which a killed driver left and which would spoil every later one."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
