"""How many trials of a study are still to run where they are chosen as it runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipelines.store.layout import LEADERBOARD_FILE
from pipelines.store.trial_record import has_begun, load_trials
from pipelines.study.config import Study
from pipelines.study.strata import num_final_trials, num_trials, strata


def trials_to_run(study: Study, folder: Path) -> int:
    """The trials of ``study`` that its ``folder`` does not list as ended.

    Of a search that is not complete all final trials count: it may choose others. A leaderboard behind which nothing is
    open has all of them, fewer than asked for where selections coincide.

    Raises:
        RecordError: the list of trials cannot be read.
    """
    if not has_begun(folder):
        return num_trials(study)
    records = load_trials(folder)
    ended = [record for record in records if record.state != "open"]
    searched = Counter(record.stratum for record in ended if record.role == "search")
    missing = sum(max(one.num_trials - searched[one.label], 0) for one in strata(study.search))
    finals = num_final_trials(study)
    if missing:
        return missing + finals
    if len(ended) == len(records) and (folder / LEADERBOARD_FILE).is_file():
        return 0
    return max(finals - sum(record.role != "search" for record in ended), 0)
