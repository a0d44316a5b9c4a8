"""The report of leaderboards in files, such as results that several people sent in: rows and headline, no store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import calm_bench
from calm_bench.overrides import ConfigurationError
from pipelines.common.sanitize import sanitize_label
from pipelines.report.boards import Origin, boards_of
from pipelines.report.columns import LONGEST_LABEL
from pipelines.report.data import Report, StudyPart
from pipelines.report.links import Links
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import read_board
from pipelines.results.looks import looks_of
from pipelines.results.merging import merged

LEFT_OUT = "The page is made of files of results, which hold rows alone: no curves, texts or settings of studies."


def collect_files(paths: Sequence[Path]) -> tuple[Report, tuple[str, ...]]:
    """The report on the rows in the files ``paths``, each written by ``calm-bench leaderboard --format json``.

    Returns:
        The report, and a remark for every model of which two files say different things.

    Raises:
        LeaderboardError: a file is no leaderboard.
        ConfigurationError: there is no row in any of them.
    """
    found = merged([(str(path), read_board(path)) for path in paths])
    if not found.entries:
        raise ConfigurationError("the files hold no rows, so there is nothing to report")
    studies = list(dict.fromkeys(map(_study, found.entries)))
    origins = {entry: Origin(studies.index(_study(entry)), Links(), None) for entry in found.entries}
    families = looks_of(origins)
    names = [sanitize_label(name, LONGEST_LABEL) for name, _ in studies]
    report = Report(
        title=" · ".join(dict.fromkeys(names)),
        studies=_parts(names, studies, found.entries),
        boards=boards_of(origins, {}, families, ()),
        families=[vars(family) for family in dict.fromkeys(families.values())],
        left_out=[LEFT_OUT],
        made_by=f"calm-bench {calm_bench.__version__}",
    )
    return report, found.remarks


def _study(entry: Entry) -> tuple[str, str]:
    return entry.study, entry.study_identity


def _parts(names: Sequence[str], studies: Sequence[tuple[str, str]], entries: Iterable[Entry]) -> Sequence[StudyPart]:
    rows = Counter(map(_study, entries))
    return [
        StudyPart(
            name=name,
            identity=study[1],
            description="",
            configuration="",
            num_trials=rows[study],
            budget=None,
            finished=None,
            url=None,
            search=None,
            ended=(),
            commands=(),
            notes=(),
            environment=(),
            stages=(),
        )
        for name, study in zip(names, studies, strict=True)
    ]
