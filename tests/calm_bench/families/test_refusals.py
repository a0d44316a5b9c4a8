"""Settings that a family cannot have are refused with the path of the key and a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError, assign, validate
from calm_bench.presets import PRESETS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.kind": "patch", "model.head.kind": "flow"}, r"model\.head belongs to model\.kind=token or calm"),
        ({"model.kind": "calm", "model.decoder.width": 8}, r"model\.decoder belongs to model\.kind=patch"),
        ({"model.kind": "multi_token", "model.denoiser.num_steps": 2}, r"model\.denoiser belongs to .*block_diffusion"),
        ({"model.kind": "patch", "model.chunk_size": 3}, r"sequence_length 256 is not a multiple of model\.chunk_size"),
        ({"model.kind": "block_diffusion", "model.denoiser.block_length": 2}, r"model\.denoiser\.block_length 2"),
        ({"model.kind": "block_diffusion", "model.denoiser.num_steps": 0}, r"model\.denoiser\.num_steps: .*found 0"),
        ({"model.kind": "block_diffusion", "model.denoiser.num_steps": 5}, r"model\.denoiser\.num_steps 5 is more"),
        ({"model.kind": "patch", "model.decoder.kind": "transformer", "model.decoder.width": 30}, r"decoder\.width 30"),
        ({"model.kind": "custom"}, r"model\.custom\.target"),
        ({"model.kind": "path"}, r"model\.kind: .*did you mean 'patch'"),
    ],
)
def test_what_a_family_cannot_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        validate(Experiment, assign(PRESETS["tiny"], settings))


@pytest.mark.parametrize("preset", ["tiny", "paper-m"])
@pytest.mark.parametrize("kind", ["token", "patch", "multi_token", "block_diffusion"])
def test_a_presets_head_does_not_stand_in_the_way_of_another_family(preset: str, kind: str) -> None:
    assert validate(Experiment, assign(PRESETS[preset], {"model.kind": kind})).model.kind == kind
