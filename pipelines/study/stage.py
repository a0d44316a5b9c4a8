"""A stage: one reproducible step of an experiment, named by what its result depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from calm_bench.errors import StopRequested
from calm_bench.fingerprint import identity


class Interrupted(StopRequested):
    """Work stopped because it was asked to; what was done is kept and the next run continues from it."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step: its kind, its configuration and the stages it reads.

    Two stages are equal when their identities are, wherever and for whichever trial they were described.
    """

    kind: str
    revision: int
    """Raised when the code of a kind changes its results, so that older results are not taken for new ones."""
    config: Mapping[str, Any]
    """JSON; everything of the experiment that the result depends on, and nothing else."""
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """Stages whose folders this one reads, by the name it knows them under."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON needed to run but not part of the identity: where an input lies, when the identity holds its content."""
    label: str = ""
    """For people, as in ``autoencoder K=4``; not part of the identity."""

    @cached_property
    def identity(self) -> str:
        """16 hex digits of kind, revision, configuration and the identities of the inputs."""
        return identity(
            {
                "kind": self.kind,
                "revision": self.revision,
                "config": self.config,
                "inputs": {name: stage.identity for name, stage in self.inputs.items()},
            }
        )

    @property
    def name(self) -> str:
        """``kind-identity``: unique within a store and usable as a file name."""
        return f"{self.kind}-{self.identity}"

    def description(self) -> dict[str, Any]:
        """What is written as ``config.json`` of the stage's folder."""
        return {
            "kind": self.kind,
            "revision": self.revision,
            "identity": self.identity,
            "label": self.label or self.kind,
            "config": dict(self.config),
            "settings": dict(self.settings),
            "inputs": {name: {"kind": stage.kind, "identity": stage.identity} for name, stage in self.inputs.items()},
        }

    def __str__(self) -> str:
        return self.label or self.kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and (self.kind, self.identity) == (other.kind, other.identity)

    def __hash__(self) -> int:
        return hash((self.kind, self.identity))


@dataclass(frozen=True)
class StageGraph(Mapping[str, Stage]):
    """The stages of one trial by kind, each after the stages it reads; the last one is the trial's result.

    Raises:
        ValueError: a stage stands before one of its inputs, or reads a stage that is not in the graph.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        seen: set[Stage] = set()
        for stage in self.stages:
            for source in stage.inputs.values():
                if source not in seen:
                    raise ValueError(f"{stage} reads {source}, which does not stand before it in the graph")
            if any(other.kind == stage.kind for other in seen):
                raise ValueError(f"a graph has one stage of each kind, found a second {stage.kind}")
            seen.add(stage)

    def __getitem__(self, kind: str) -> Stage:
        for stage in self.stages:
            if stage.kind == kind:
                return stage
        raise KeyError(kind)

    def __iter__(self) -> Iterator[str]:
        return (stage.kind for stage in self.stages)

    def __len__(self) -> int:
        return len(self.stages)
