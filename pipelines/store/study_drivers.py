"""The drivers that run a study, known to each other by leases.

Trials in a journal and trials in a database are two searches under one name, which ask the same trials twice and write
the same files. So drivers that run a study at the same time keep its trials in the one or in the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pipelines.store.errors import StudyBusy
from pipelines.store.lease import HeldLease, Lease, LeaseManager

STUDY = "study-"
"""Leases of studies begin so, and those of stages do not."""
JOURNAL, DATABASE = "journal", "database"


class StudyDrivers:
    """The drivers of the studies of one store.

    Args:
        uri: of the store, for people.
        share_journals: whether several drivers may write a journal, as a file system lets them.
    """

    def __init__(self, leases: LeaseManager, uri: str, share_journals: bool) -> None:
        self._leases = leases
        self._uri = uri
        self._share_journals = share_journals

    @contextmanager
    def running(self, name: str, in_journal: bool) -> Iterator[Lease]:
        """Be a driver of the study ``name``.

        Args:
            in_journal: whether it keeps the trials in a journal in the store, and not in a database.

        Raises:
            StudyBusy: another driver keeps them in the other, or in a journal that only one may write.
        """
        lease = self._acquire(name, in_journal)
        try:
            self._refuse_beside(name, DATABASE if in_journal else JOURNAL)
            yield lease
        finally:
            lease.release()
            # A driver that was killed leaves its own, which nobody else would take over.
            with suppress(OSError):
                self._leases.sweep(prefix=f"{STUDY}{name}.")

    def _acquire(self, name: str, in_journal: bool) -> Lease:
        if in_journal and not self._share_journals:
            lease = self._leases.acquire(f"{STUDY}{name}")
        else:
            kind = JOURNAL if in_journal else DATABASE
            lease = self._leases.acquire(f"{STUDY}{name}.{kind}-{uuid.uuid4().hex}")
        if lease is None:
            holder = self._leases.holder(f"{STUDY}{name}") or "another driver"
            raise StudyBusy(
                f"{holder} runs this study in {self._uri}, and an object store cannot let two drivers share "
                "a journal: wait for it, or stop it and have all drivers keep the trials in one database "
                "(execution.optuna_storage), or use a shared folder as the store. Different studies may share all "
                "their stages."
            )
        return lease

    def _refuse_beside(self, name: str, other: str) -> None:
        held = self._leases.held()
        for lease, found in held.items():
            if lease.startswith(f"{STUDY}{name}.{other}-") or (other == JOURNAL and lease == f"{STUDY}{name}"):
                raise StudyBusy(
                    f"{found.holder} runs this study in {self._uri} with its trials in a {other}: wait for it, or stop "
                    "it and have all drivers keep the trials in one database (execution.optuna_storage)"
                    + (", or all in the journal (without it)" if self._share_journals else "")
                )


def is_driven(name: str, held: Mapping[str, HeldLease]) -> bool:
    """Whether a live driver runs the study ``name``, as the leases ``held`` tell."""
    return any(lease == f"{STUDY}{name}" or lease.startswith(f"{STUDY}{name}.") for lease in held)
