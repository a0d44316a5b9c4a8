"""What a stage reads from outside of the store, and is no longer what it was described with."""

from __future__ import annotations

from calm_bench.errors import UsageError


class ChangedSource(UsageError, ValueError):
    """Text, a folder or code changed between the reading of a study and the run of one of its stages."""

    input_explains = False


def refuse_changed(what: str | None) -> None:
    """
    Raises:
        ChangedSource: there is ``what`` changed.
    """
    if what is not None:
        raise ChangedSource(
            f"{what} has changed since the study was read: the same command goes on with what is there now"
        )
