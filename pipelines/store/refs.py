"""What stages and studies are called in a store: ``kind-identity`` and ``name-identity``, taken apart here only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.store.names import is_plain


@dataclass(frozen=True, order=True)
class StageRef:
    """A stage by its kind and its identity, as files name it."""

    kind: str
    identity: str

    @classmethod
    def parse(cls, name: str) -> StageRef:
        """The stage called ``kind-identity``; identities hold no hyphen, kinds may."""
        kind, _, identity = name.rpartition("-")
        return cls(kind, identity)

    @property
    def name(self) -> str:
        """``kind-identity``: unique within a store and usable as a file name."""
        return f"{self.kind}-{self.identity}"

    @property
    def is_plain(self) -> bool:
        """Whether both are ordinary names, so that paths made of them stay inside the store."""
        return is_plain(self.kind) and is_plain(self.identity)

    @property
    def title(self) -> str:
        """The kind in words, for a stage without a label."""
        return self.kind.replace("_", " ")


@dataclass(frozen=True, order=True)
class StudyRef:
    """A study by its name and its identity, as its folder is called."""

    name: str
    identity: str

    @classmethod
    def of(cls, folder: Path) -> StudyRef:
        """The study whose files are in ``folder``."""
        return cls.parse(folder.name)

    @classmethod
    def parse(cls, folder_name: str) -> StudyRef:
        """The study whose folder is called so; names may hold hyphens, identities hold none."""
        name, _, identity = folder_name.rpartition("-")
        return cls(name, identity)

    @property
    def folder_name(self) -> str:
        return f"{self.name}-{self.identity}"
