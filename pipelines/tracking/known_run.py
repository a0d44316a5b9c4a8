"""One run of MLflow, by what is needed of it to know what has arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.tracking.tags import (
    COMPLETE,
    DESCRIBED,
    ERROR,
    LEADERBOARD,
    ROLE,
    SAMPLES,
    SENT,
    STATE,
    TRIAL_KEY,
    VIOLATIONS,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_OWN_TAGS = (ROLE, TRIAL_KEY, SENT, SAMPLES, COMPLETE, DESCRIBED, ERROR, STATE, LEADERBOARD, VIOLATIONS)


@dataclass
class KnownRun:
    """A run without its parameters and metrics: those of thousands would fill the memory. Writes what differs only.

    Every method that writes may raise what MLflow raises.
    """

    client: MlflowClient
    run_id: str
    start: int
    """Milliseconds since 1970."""
    status: str
    end: int | None
    tags: dict[str, str]
    """Those by which it is known what has arrived."""

    @classmethod
    def of(cls, client: MlflowClient, run: Run) -> KnownRun:
        """What is known of ``run``."""
        tags = {name: run.data.tags[name] for name in _OWN_TAGS if name in run.data.tags}
        return cls(client, run.info.run_id, run.info.start_time, run.info.status, run.info.end_time, tags)

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, value)
        self.tags[name] = value

    def untag(self, name: str) -> None:
        """Delete a tag, if it is there."""
        if name in self.tags:
            self.client.delete_tag(self.run_id, name)
            del self.tags[name]

    def set_running(self) -> None:
        """Show the run as running."""
        if self.status != "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
            self.status = "RUNNING"

    def set_ended(self, status: str, end: int) -> None:
        """Show the run as ended at ``end``, in milliseconds since 1970, with MLflow's ``status``."""
        if (self.status, self.end) != (status, end):
            self.client.set_terminated(self.run_id, status, end)
            self.status, self.end = status, end
