"""The text that a search's objective is measured on, checked before it is spent.

The best of many scores on one text is too high on that text, and the more are compared the more so. Test text on which
trials were chosen therefore tests nothing any more.
"""

from __future__ import annotations

from typing import Literal

from calm_bench.overrides import ConfigurationError
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.trial_record import has_begun
from pipelines.study.config import Study

REASON = (
    "its scores on test text choose the next trials, so that the best of them is too good there, and no text is left "
    "to test it on"
)


def settle_objective_text(study: Study, store: Store) -> tuple[Study, str | None]:
    """``study``, or the same study as an earlier version began it in ``store``; and what people should know of it.

    Raises:
        ConfigurationError: it would choose its trials by scores on test text.
    """
    search = study.search
    if study.final is not None or search.allow_test_objective:
        return study, None
    if not search.chooses_by_score:
        return study, _of_random_points(study)
    on_test = _scored_on(study, "test")
    if study.split == "validation":
        begun = study.evaluation.split == "test" and not _has_begun(study, store) and _has_begun(on_test, store)
        if not begun:
            return study, None
    elif not _has_begun(study, store):
        raise ConfigurationError(
            f"study {study.name}: {REASON}. Leave search.split out, which takes validation text, and let final score "
            "the best on test text ('final={seeds: [1, 2, 3]}'); search.allow_test_objective=true does it nevertheless"
        )
    return on_test, (
        f"study {study.name} was begun in this store with its objective on test text and goes on so: {REASON}. Under "
        "another name (name=...) it begins anew, with validation text"
    )


def _of_random_points(study: Study) -> str | None:
    """What to know of a random search on test text: no score chooses its trials, but readers take the best."""
    search = study.search
    if search.sampler != "random" or study.split != "test" or search.goes_by_costs:
        return None
    return (
        f"study {study.name} draws {search.num_trials} trials at random and scores all of them on test text, where the "
        "best of so many is too good. 'final={seeds: [1, 2, 3]}' compares them on validation text and scores the best "
        "with fresh seeds; search.split=validation keeps test text for later"
    )


def _scored_on(study: Study, split: Literal["validation", "test"]) -> Study:
    return study.model_copy(update={"search": study.search.model_copy(update={"split": split})})


def _has_begun(study: Study, store: Store) -> bool:
    return has_begun(study_folder(study, store))
