"""The drivers that run a study, known to each other by leases.

Trials in a journal and trials in a database, or in two databases, are two searches under one name, which ask the same
trials twice and write the same files. So drivers that run a study at the same time keep its trials in one place.
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
    def running(self, name: str, database: str | None) -> Iterator[Lease]:
        """Be a driver of the study ``name``.

        Args:
            database: in which it keeps the trials, in letters and digits that no other database has; None where it
                keeps them in a journal in the store.

        Raises:
            StudyBusy: another driver keeps them elsewhere, or in a journal that only one may write.
        """
        lease = self._acquire(name, database)
        try:
            self._refuse_beside(name, database)
            yield lease
        finally:
            lease.release()
            # A driver that was killed leaves its own, which nobody else would take over.
            with suppress(OSError):
                self._leases.sweep(prefix=f"{STUDY}{name}.")

    def _acquire(self, name: str, database: str | None) -> Lease:
        if database is None and not self._share_journals:
            lease = self._leases.acquire(f"{STUDY}{name}")
        else:
            lease = self._leases.acquire(f"{STUDY}{name}.{_place(database)}-{uuid.uuid4().hex}")
        if lease is None:
            holder = self._leases.holder(f"{STUDY}{name}") or "another driver"
            raise StudyBusy(
                f"{holder} runs this study in {self._uri}, and an object store cannot let two drivers share "
                "a journal: wait for it, or stop it and have all drivers keep the trials in one database "
                "(execution.optuna_storage), or use a shared folder as the store. Different studies may share all "
                "their stages."
            )
        return lease

    def _refuse_beside(self, name: str, database: str | None) -> None:
        own = f"{STUDY}{name}.{_place(database)}-"
        for lease, found in self._leases.held().items():
            alone = lease == f"{STUDY}{name}"
            if (alone and database is not None) or (lease.startswith(f"{STUDY}{name}.") and not lease.startswith(own)):
                in_journal = alone or lease.startswith(f"{STUDY}{name}.{JOURNAL}-")
                other = f"a {JOURNAL}" if in_journal else f"{'a' if database is None else 'another'} {DATABASE}"
                raise StudyBusy(
                    f"{found.holder} runs this study in {self._uri} with its trials in {other}: wait for it, or stop "
                    "it and have all drivers keep the trials in one database (execution.optuna_storage)"
                    + (", or all in the journal (without it)" if self._share_journals else "")
                )


def _place(database: str | None) -> str:
    return JOURNAL if database is None else f"{DATABASE}-{database}"


def is_driven(name: str, held: Mapping[str, HeldLease]) -> bool:
    """Whether a live driver runs the study ``name``, as the leases ``held`` tell."""
    return any(lease == f"{STUDY}{name}" or lease.startswith(f"{STUDY}{name}.") for lease in held)
