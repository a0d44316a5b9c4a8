"""The trials of a study as Optuna keeps them: asked, told, and found again by the next driver.

Results never depend on who was faster. A grid and a random search propose trial n from n alone; TPE proposes trial n
once trials 0 to n - ``concurrent_trials`` are told, in that order and no further, whatever runs where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from calm_bench.seeding import derive
from pipelines.search.optuna_trials import stored_trial, trial_of
from pipelines.search.trial_storage import TrialStorage
from pipelines.study.search_settings import Search
from pipelines.study.space import Point, distributions, grid_points

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 6
"""Trials of ``tpe`` that are drawn at random before the model of the space is worth asking."""


TrialRequestState = Literal["open", "complete", "failed", "invalid", "pruned"]
"""``invalid``: it could not be run as its study was then. Nothing of it was tried, so whoever asks looks anew."""


@dataclass(frozen=True)
class TrialRequest:
    """A trial as the queue knows it."""

    number: int
    point: Point
    state: TrialRequestState
    error: str | None = None
    """Why it failed, could not be run or was pruned."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """Validation loss by rung of the pruner, as it was told."""


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial: its objectives, or why it has none."""

    values: Sequence[float] | None = None
    error: str | None = None
    pruned: bool = False
    """Stopped because it was worse than others, and not by an error."""
    invalid: bool = False
    """Not run, because it cannot be."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """By how much each is broken; zero or less is kept."""
    rungs: Mapping[int, float] = field(default_factory=dict)
    """Validation loss by rung of the pruner."""


class TrialQueue:
    """The trials of one search. Use from one thread; several drivers may have the same trials open.

    Whatever is done under the guard of the storage bears being done again: a connection may end while it is done.

    Args:
        seed: of the sampler.
        retry_failed: propose the points of failed trials once more, as new trials.
        name: of the search in ``storage``; unset means that of the study.
    """

    def __init__(
        self, storage: TrialStorage, search: Search, seed: int, retry_failed: bool = False, name: str | None = None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = storage
        self._search = search
        self._seed = seed
        self._space = distributions(search)
        self._points = grid_points(search) if search.sampler == "grid" else []
        self._wanted = len(self._points) if search.sampler == "grid" else search.num_trials or 0
        self._untold: dict[int, TrialResult] = {}
        self._num_given = 0
        # As a study would keep it, so that both remember the same ended trials.
        self._backend = backend = optuna.storages.get_storage(storage.open())

        def begin() -> optuna.Study:
            return optuna.create_study(
                storage=backend,
                study_name=name or storage.study_name,
                directions=[objective.direction for objective in search.objectives],
                load_if_exists=True,
            )

        self._study = storage.exclusively(begin)
        if retry_failed:
            storage.exclusively(self._propose_failed_again)
        storage.exclusively(self._ask)

    @property
    def num_trials(self) -> int:
        """How many trials the search will have, a retried one counted once; those that a longer search asked for
        before count too."""
        asked = sum(1 for trial in self._storage.exclusively(self._frozen) if "retry_of" not in trial.user_attrs)
        return max(self._wanted, asked)

    def new_trials(self) -> list[TrialRequest]:
        """The trials, by number, that no earlier call has given out.

        The first call gives those of earlier drivers too; later ones those that other drivers of the same study asked
        meanwhile. A failed trial that was proposed again is given by its latest try.
        """
        new = self._storage.exclusively(self._asked)
        if new:
            # With those whose place a later try has taken.
            self._num_given = new[-1].number + 1
        return new

    def tell(self, number: int, told: TrialResult) -> None:
        """Record what became of a trial."""
        self._untold[number] = told
        while self._storage.exclusively(self._tell_next):
            pass

    def close(self) -> None:
        """Let go of the storage."""
        self._storage.close()

    @property
    def num_asked(self) -> int:
        """How many trials have been asked so far, every try of one counted."""
        return len(self._storage.exclusively(self._frozen))

    def _tell_next(self) -> bool:
        """Tell one trial that may be told, and ask for what follows it; whether there was one."""
        number = next(self._ready(), None)
        if number is None:
            return False
        self._record(number, self._untold[number])
        if self._search.sampler == "tpe":
            # Before the next is told: a proposal must not depend on who happened to finish together.
            self._ask()
        del self._untold[number]
        return True

    def _asked(self) -> list[TrialRequest]:
        # Re-issue trials whose driver was killed while suggesting parameters: nobody else goes on with them.
        return _latest(self._ask()[self._num_given :])

    def _ask(self) -> list[optuna.trial.FrozenTrial]:
        """Ask for as many trials as may be under way; all there are then. The guard must be held."""
        trials = self._whole(self._frozen())
        missing = self._wanted - sum(1 for trial in trials if "retry_of" not in trial.user_attrs)
        if self._search.sampler == "tpe":
            told = sum(1 for trial in trials if trial.state.is_finished())
            missing = min(missing, told + self._search.concurrent_trials - len(trials))
        if missing <= 0:
            return trials
        for number in range(len(trials), len(trials) + missing):
            match self._search.sampler:
                case "grid":
                    # In their order, so that the last ones are missing.
                    self._add(self._points[number - len(trials) - missing])
                case "random":
                    self._add(self._drawn(number))
                case "tpe":
                    self._study.sampler = self._sampler(number)
                    self._study.ask(self._space)
        return self._frozen()

    def _add(self, point: Point, **user_attrs: Any) -> None:
        """A running trial, whole at once: asking would take a step for each parameter, and read all trials before."""
        import optuna

        trial = optuna.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=point, distributions=self._space, user_attrs=user_attrs
        )
        self._study.add_trial(trial)

    def _drawn(self, number: int) -> Point:
        """What Optuna would draw for trial ``number`` if it were asked."""
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        sampler, point = self._sampler(number), Point()
        trial = optuna.create_trial(state=optuna.trial.TrialState.RUNNING)
        for name, space in self._space.items():
            match space:
                case CategoricalDistribution() if space.single():
                    point[name] = space.choices[0]
                case FloatDistribution() | IntDistribution() if space.single():
                    point[name] = space.low
                case _:
                    point[name] = sampler.sample_independent(self._study, trial, name, space)
        return point

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

    def _record(self, number: int, told: TrialResult) -> None:
        from optuna.trial import TrialState

        frozen = stored_trial(self._study, self._backend, number)
        if frozen.state.is_finished():
            return
        # All of it before the state, so that no trial is ever seen as ended without its reason.
        trial = trial_of(self._study, self._backend, number)
        for rung, loss in sorted(told.rungs.items()):
            if rung not in frozen.intermediate_values:
                trial.report(loss, rung)
        for name, excess in told.constraints.items():
            trial.set_constraint(name, excess)
        if told.values is not None:
            self._study.tell(number, list(told.values), skip_if_finished=True)
            return
        trial.set_user_attr("error", told.error or "unknown")
        if told.invalid:
            trial.set_user_attr("invalid", True)
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
        trials = self._whole(self._frozen())
        for asked in _latest(trials):
            if asked.state == "failed":
                self._add(asked.point, retry_of=trials[asked.number].user_attrs.get("retry_of", asked.number))

    def _whole(self, trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
        """``trials``, none of which waits or lacks a parameter, as killed drivers and older versions leave them."""
        from optuna.trial import TrialState

        waits = any(trial.state == TrialState.WAITING for trial in trials)
        if not waits and all(
            trial.state.is_finished() or trial.params.keys() == self._space.keys() for trial in trials
        ):
            return trials
        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask(self._space)
        self._complete_half_asked()
        return self._frozen()

    def _complete_half_asked(self) -> None:
        """Draw what is missing of a running trial whose driver was killed between two parameters."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        for frozen in self._frozen():
            if frozen.state.is_finished() or frozen.params.keys() == self._space.keys():
                continue
            self._study.sampler = self._sampler(frozen.number)
            trial = trial_of(self._study, self._backend, frozen.number)
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


def _latest(trials: Sequence[optuna.trial.FrozenTrial]) -> list[TrialRequest]:
    """The trials by number; of those that are tries of one point, the last."""
    latest = {trial.user_attrs.get("retry_of", trial.number): _asked(trial) for trial in trials}
    return sorted(latest.values(), key=lambda asked: asked.number)


def _asked(trial: optuna.trial.FrozenTrial) -> TrialRequest:
    from optuna.trial import TrialState

    states: dict[TrialState, TrialRequestState] = {
        TrialState.COMPLETE: "complete",
        TrialState.FAIL: "failed",
        TrialState.PRUNED: "pruned",
    }
    state: TrialRequestState = states.get(trial.state, "open")
    if state == "failed" and trial.user_attrs.get("invalid"):
        state = "invalid"
    error = str(trial.user_attrs.get("error", "unknown")) if state not in ("open", "complete") else None
    return TrialRequest(trial.number, dict(trial.params), state, error, dict(trial.intermediate_values))
