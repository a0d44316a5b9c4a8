"""The errors of differences between rows: paired by document where both rows carry what that needs.

A row carries its BrierLM with each group of documents left out (:mod:`evals.replicates`), so pairs can be made of
rows from files, from MLflow and from other machines alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.results.answers import CONFIDENCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evals.replicates import Replicates
    from pipelines.results.entry import Entry

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Differences:
    """The standard errors of the differences in BrierLM between any two of n rows."""

    errors: Floats
    """``[n, n]``"""
    paired: Flags
    """``[n, n]`` whether documents were paired; else the two errors are summed as if independent."""
    freedom: Floats
    """``[n, n]`` degrees of freedom of the errors (:func:`evals.stats.freedom`); infinite for two rows of one seed."""

    @property
    def margins(self) -> Floats:
        """``[n, n]`` how far two scores must be apart to differ at the 5 % level."""
        from scipy.special import stdtrit

        margins: Floats = self.errors * stdtrit(self.freedom, 0.5 + CONFIDENCE / 2)
        return margins

    @property
    def all_paired(self) -> bool:
        return bool(self.paired.all())

    @property
    def any_paired(self) -> bool:
        """Whether any two different rows are paired."""
        return int(self.paired.sum()) > len(self.paired)


def differences(entries: Sequence[Entry]) -> Differences:
    """The errors of all differences between ``entries``, errors over seeds included where rows have them.

    Seeds of two configurations have nothing in common, so their errors are summed; documents are paired.
    """
    import numpy as np

    from evals.replicates import deviations

    count = len(entries)
    whole = np.array([entry.brierlm_se for entry in entries])
    errors = np.hypot(whole[:, None], whole[None, :])
    paired = np.zeros((count, count), dtype=bool)
    by_documents: dict[tuple[str, int], list[int]] = {}
    found = [replicates_of(entry) for entry in entries]
    for index, replicates in enumerate(found):
        if replicates is not None:
            by_documents.setdefault((replicates.documents, len(replicates.scores)), []).append(index)
    for indices in by_documents.values():
        parts = deviations(np.stack([found[index].scores for index in indices]))  # type: ignore[union-attr]
        norms = (parts**2).sum(axis=1)
        squared = np.maximum(norms[:, None] + norms[None, :] - 2.0 * parts @ parts.T, 0.0)
        seeds = np.array([entries[index].seed_error or 0.0 for index in indices]) ** 2
        where = np.ix_(indices, indices)
        errors[where] = np.sqrt(squared + seeds[:, None] + seeds[None, :])
        paired[where] = True
    np.fill_diagonal(errors, 0.0)
    np.fill_diagonal(paired, True)
    # As evals.stats.freedom, of all pairs at once.
    spread = np.array([(entry.seed_error or 0.0) ** 4 / max(len(entry.seeds) - 1, 1) for entry in entries])
    with np.errstate(divide="ignore", invalid="ignore"):
        known = errors**4 / (spread[:, None] + spread[None, :])
    known[~np.isfinite(known) | (errors == 0)] = np.inf
    return Differences(errors, paired, known)


@dataclass(frozen=True)
class RowDifference:
    """BrierLM of one row minus that of another."""

    value: float
    error: float
    """Standard error: documents, paired where they can be, and seeds."""
    is_paired: bool
    """Whether documents were paired; else the errors of both rows are summed as if independent."""
    freedom: float
    """Degrees of freedom of the error (:func:`evals.stats.freedom`); infinite for rows of one seed."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Student's t: few seeds tell little of how much seeds vary."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.freedom, 0.5 + CONFIDENCE / 2)) * self.error
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """The chance of a difference as large, in either direction, where there is none."""
        from scipy.special import stdtr

        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2.0 * stdtr(self.freedom, -abs(self.value) / self.error)) if math.isfinite(self.error) else 1.0


def difference(first: Entry, second: Entry) -> RowDifference:
    """BrierLM of ``first`` minus that of ``second``."""
    value = first.brierlm - second.brierlm
    if first.protocol_hash != second.protocol_hash:
        return RowDifference(value, math.hypot(first.brierlm_se, second.brierlm_se), False, math.inf)
    found = differences([first, second])
    return RowDifference(value, float(found.errors[0, 1]), bool(found.paired[0, 1]), float(found.freedom[0, 1]))


def replicates_of(entry: Entry) -> Replicates | None:
    """What ``entry`` carries, or None where that is nothing or says nothing.

    A score that is clipped to 0, or is without a group of documents, has no derivative for the jackknife to find.
    """
    return usable_replicates(entry.replicates) if entry.brierlm > 0 else None


def usable_replicates(text: str) -> Replicates | None:
    """The replicates in ``text``; None if there are none or one of them is clipped to 0."""
    from evals.replicates import Replicates

    try:
        found = Replicates.from_text(text) if text else None
    except ValueError:
        return None
    return found if found is not None and (found.scores > 0).all() else None


def mean_of(replicates: Sequence[str]) -> str:
    """The replicates of a mean of scores; empty unless all scores have usable ones over the same documents."""
    from evals.replicates import Replicates

    found = _over_same_documents(replicates)
    return "" if not found else Replicates(found[0].documents, _stacked(found).mean(axis=0)).to_text()


def common_share(replicates: Sequence[str]) -> float:
    """The error over documents of a mean of scores, as a share of the root mean square of theirs.

    It is 1 where documents are as hard for all of them alike, and where that is not known: unless all have usable
    replicates over the same documents.
    """
    import numpy as np

    from evals.replicates import deviations

    found = _over_same_documents(replicates)
    if not found:
        return 1.0
    parts = deviations(_stacked(found))
    own = float((parts**2).sum(axis=1).mean())
    return float(np.sqrt((parts.mean(axis=0) ** 2).sum() / own)) if own > 0 else 1.0


def _over_same_documents(replicates: Sequence[str]) -> list[Replicates]:
    found = [one for one in map(usable_replicates, replicates) if one is not None]
    alike = len({(one.documents, len(one.scores)) for one in found}) == 1
    return found if alike and len(found) == len(replicates) else []


def _stacked(found: Sequence[Replicates]) -> Floats:
    """``[n, G]``"""
    import numpy as np

    return np.stack([one.scores for one in found])
