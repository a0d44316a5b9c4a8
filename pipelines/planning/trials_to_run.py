"""How many trials of a study are still to run where they are chosen as it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.study_record import load_study
from pipelines.store.trial_record import TrialRecord, has_begun, load_trials
from pipelines.study.config import Final, Study
from pipelines.study.strata import num_final_trials, num_trials, strata


def trials_to_run(study: Study, folder: Path, is_current: Callable[[TrialRecord], bool] = lambda record: True) -> int:
    """The trials of ``study`` that its ``folder`` does not list as ended.

    Of a search that is not complete all final trials count: it may choose others. ``final`` may have been asked for, or
    for more seeds, after a run: what no run was told of counts.

    Args:
        is_current: whether a trial that has ended is one of the study as it is now, whose code may have been edited.

    Raises:
        RecordError: the list of trials cannot be read.
    """
    if not has_begun(folder):
        return num_trials(study)
    records = load_trials(folder)
    ended = [record for record in records if record.state != "open" and is_current(record)]
    searched = Counter(record.stratum for record in ended if record.role == "search")
    missing = sum(max(one.num_trials - searched[one.label], 0) for one in strata(study.search))
    if missing or study.final is None:
        return missing + num_final_trials(study)
    trained = Counter((record.stratum, record.settings.get("seed")) for record in ended if record.role != "search")
    wanted = [(one.label, seed) for one in strata(study.search) for seed in study.final.seeds]
    is_complete = len(ended) == len(records) and (folder / LEADERBOARD_FILE).is_file()
    if is_complete and _was_told(study.final, folder) and all(trained[one] for one in wanted):
        # Selections that coincide are trained once.
        return 0
    return sum(max(study.final.top + study.final.untuned - trained[one], 0) for one in wanted)


def _was_told(final: Final, folder: Path) -> bool:
    """Whether the last run was to make these final trials."""
    record = load_study(folder)
    return record is not None and record.settings.get("final") == final.model_dump(mode="json")
