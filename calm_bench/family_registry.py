"""The families of models by name, and what a configuration must know of one before anything is priced or built.

Nothing here imports a family: each is loaded when a configuration names it.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from calm_bench.registry import Registry

SECTIONS = ("head", "decoder", "denoiser", "custom")
"""The fields of :class:`calm_bench.config.LanguageModel` that belong to some families and not to others."""


class FamilyRules(ABC):
    """What :class:`calm_bench.config.LanguageModel` asks of its family."""

    name: ClassVar[str]
    """``model.kind``."""
    revision: ClassVar[int] = 1
    """Raised when equal settings train another model than before: results of then are not taken for those of now."""
    sections: ClassVar[frozenset[str]] = frozenset({"custom"})
    """Those of ``SECTIONS`` that may be set."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Fields of a model that change nothing in this family, and so do not set two models apart."""
    needs_autoencoder: ClassVar[bool] = False
    """Whether a model of the family is built on a trained chunk autoencoder."""
    fixed_chunk_size: ClassVar[int | None] = None
    """K, where the family has but one."""

    def uses(self, section: str) -> bool:
        """Whether a field of the model, such as ``head``, says something in this family."""
        return section not in self.unused and (section not in SECTIONS or section in self.sections)

    def problem(self, model: Any) -> str | None:
        """Why ``model``, a :class:`calm_bench.config.LanguageModel`, cannot be; None where it can."""
        return None

    def label(self, chunk_size: int) -> str:
        """A model of the family in a few words, as stages are called."""
        return f"{self.name} model K={chunk_size}"

    def short_label(self, chunk_size: int) -> str:
        """The same as rows of a leaderboard are called."""
        return f"{self.name} K={chunk_size}"


FAMILIES: Registry[FamilyRules] = Registry(
    "family",
    {
        "token": "calm_bench.families.token:TOKEN",
        "calm": "calm_bench.families.calm:CALM",
        "patch": "calm_bench.families.patch:PATCH",
        "multi_token": "calm_bench.families.multi_token:MULTI_TOKEN",
        "block_diffusion": "calm_bench.families.block_diffusion:BLOCK_DIFFUSION",
        "custom": "calm_bench.families.custom:CUSTOM",
    },
    one="family of models",
)


def lacks_part(kind: str, path: str) -> bool:
    """Whether models of ``kind`` have no part to which the setting ``path`` of an experiment belongs.

    An autoencoder and a head belong to CALM, a chunk size to all but token models, a decoder to patch models. Of a kind
    that nobody registered nothing is known, and the answer is no.
    """
    if kind not in FAMILIES.names():
        return False
    family = FAMILIES.get(kind)
    lacking = [f"model.{field}" for field in (*SECTIONS, "chunk_size") if not family.uses(field)]
    if not family.needs_autoencoder:
        lacking.append("autoencoder")
    return any(path == part or path.startswith(f"{part}.") for part in lacking)
