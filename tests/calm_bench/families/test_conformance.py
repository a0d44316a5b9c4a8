"""The families that come with the package against the suite that every family must pass."""

from __future__ import annotations

from typing import Any, ClassVar

from calm_bench.config import Autoencoder
from calm_bench.testing.family_conformance import BoundedFamilyConformance, D, ExactFamilyConformance


class TestToken(ExactFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {"kind": "token"}


class TestCalm(BoundedFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {
        "kind": "calm",
        "head": {"kind": "energy", "width": 12, "num_samples": 4, "num_targets": 5},
    }
    # The closed form takes a gradient for the noise too.
    training_tolerance = 0.1


class TestCalmOnAnAutoencoderThatReadsTheChunkBefore(TestCalm):
    state_size = D + 8

    def autoencoder(self) -> Autoencoder:
        return super().autoencoder().model_copy(update={"context_chunks": 1})


class TestPatch(ExactFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {"kind": "patch"}


class TestPatchOfFour(ExactFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {
        "kind": "patch",
        "chunk_size": 4,
        "decoder": {"width": 12, "num_layers": 2, "intermediate_size": 20},
    }


class TestPatchTransformer(ExactFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {
        "kind": "patch",
        "chunk_size": 3,
        "decoder": {"kind": "transformer", "num_layers": 2},
    }


class TestMultiToken(ExactFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {"kind": "multi_token", "chunk_size": 3}


class TestBlockDiffusion(BoundedFamilyConformance):
    settings: ClassVar[dict[str, Any]] = {"kind": "block_diffusion", "chunk_size": 3}
    # How many tokens are masked is drawn.
    training_tolerance = 0.02


class TestBlockDiffusionInTwoSteps(TestBlockDiffusion):
    settings: ClassVar[dict[str, Any]] = {"kind": "block_diffusion", "chunk_size": 3, "denoiser": {"num_steps": 2}}
