"""All trials of a study under numbers of its own: those of its searches, and then the final ones.

Each search is a study in Optuna, so that what one tries never depends on the scores of another, nor on those of code
that was edited since. Its trials lie interleaved with those of the others: the first of each, then the second of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calm_bench.fingerprint import identity
from calm_bench.seeding import derive
from pipelines.search.selection import Selected, final_search
from pipelines.search.trial_queue import TrialQueue, TrialRequest, TrialRequestState, TrialResult
from pipelines.search.trial_storage import TrialStorage
from pipelines.study.config import Study
from pipelines.study.named_content import named_content
from pipelines.study.search_settings import Search
from pipelines.study.space import label_of, settings_at
from pipelines.study.strata import num_final_trials, strata
from pipelines.study.trial import TrialRole


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a study that has been asked, and what is known of it."""

    number: int
    label: str
    settings: Mapping[str, Any]
    """By dotted path of the experiment."""
    state: TrialRequestState
    error: str | None
    rungs: Mapping[int, float]
    role: TrialRole
    stratum: str
    """Label of the search that it belongs to, or whose best it is; empty where the study is one search."""


@dataclass(frozen=True)
class _Part:
    """A queue, and the numbers of its trials among those of the study: ``first + step * number``."""

    queue: TrialQueue
    search: Search
    first: int
    step: int
    stratum: str
    chosen: Mapping[str, Any]
    selected: Mapping[str, Selected]
    """What is trained again, by label; empty for a search."""

    def trial(self, asked: TrialRequest, name: str) -> StudyTrial:
        point = {**self.chosen, **asked.point}
        chosen = self.selected.get(str(asked.point.get("selected")))
        return StudyTrial(
            self.first + self.step * asked.number,
            label_of(self.search, point, name),
            settings_at(self.search, point),
            asked.state,
            asked.error,
            asked.rungs,
            "search" if chosen is None else chosen.role,
            self.stratum if chosen is None else chosen.stratum,
        )


class StudyQueue:
    """The trials of ``study`` in ``storage``. Use from one thread; several drivers may have the same trials open.

    Args:
        retry_failed: propose the points of failed trials once more, as new trials.
    """

    def __init__(self, storage: TrialStorage, study: Study, retry_failed: bool = False) -> None:
        self._storage = storage
        self._study = study
        self._retry_failed = retry_failed
        content = named_content(study)
        # The name of the study alone is what studies of settings alone have always had.
        self._name = storage.study_name if content is None else f"{storage.study_name} / with {content}"
        found = strata(study.search)
        self._parts = [
            _Part(
                self._queue(stratum.label, stratum.search),
                study.search,
                index,
                len(found),
                stratum.label,
                stratum.chosen,
                {},
            )
            for index, stratum in enumerate(found)
        ]
        self._given: dict[int, tuple[_Part, int]] = {}
        self._final: _Part | None = None
        self._has_final = False

    @property
    def num_trials(self) -> int:
        """How many trials the study has; until the final ones are asked, the most that they may be."""
        final = 0 if self.has_final else num_final_trials(self._study)
        return final + sum(part.queue.num_trials for part in self._every_part)

    def new_trials(self) -> list[StudyTrial]:
        """The trials, by number, that no earlier call has given out; see :meth:`TrialQueue.new_trials`."""
        return sorted(self._new_trials(), key=lambda trial: trial.number)

    def tell(self, number: int, told: TrialResult) -> None:
        """Record what became of a trial."""
        part, own = self._given[number]
        part.queue.tell(own, told)

    def add_final(self, selected: Sequence[Selected]) -> None:
        """Ask for the final trials, once all others have ended.

        They belong to what was selected and to the seeds: where a longer search, or a failed trial that was tried
        again, leads to another selection, or ``final`` names other seeds, they are others. What they share with earlier
        ones is in the store.
        """
        assert self._study.final is not None
        self._has_final = True
        if not selected:
            return
        search = final_search(selected, self._study.final)
        by_label = {one.label: one for one in selected}
        chosen = {label: dict(one.settings) for label, one in by_label.items()}
        content = identity([chosen, search.fixed, list(self._study.final.seeds)])
        queue = self._queue(f"final {content}", search)
        first = len(self._parts) * max(part.queue.num_asked for part in self._parts)
        self._final = _Part(queue, search, first, 1, "", {}, by_label)

    @property
    def has_final(self) -> bool:
        """Whether the final trials have been asked, if there are any."""
        return self._has_final

    def close(self) -> None:
        """Let go of the storage."""
        self._storage.close()

    @property
    def _every_part(self) -> list[_Part]:
        return [*self._parts, *([] if self._final is None else [self._final])]

    def _queue(self, label: str, search: Search) -> TrialQueue:
        name = f"{self._name} / {label}" if label else self._name
        seed = derive(self._study.seed, "stratum", label) if label else self._study.seed
        return TrialQueue(self._storage, search, seed, self._retry_failed, name)

    def _new_trials(self) -> Iterator[StudyTrial]:
        for part in self._every_part:
            for asked in part.queue.new_trials():
                trial = part.trial(asked, self._study.name)
                self._given[trial.number] = part, asked.number
                yield trial
