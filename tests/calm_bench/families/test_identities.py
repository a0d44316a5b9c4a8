"""Token and CALM models keep the names that stores and measured speeds know them by."""

from __future__ import annotations

from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity
from calm_bench.overrides import assign
from calm_bench.presets import PRESETS
from pipelines.study.graph import stages_for
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model.kind": "token"}, "e61c71ad0c827238"),
        ({}, "f0f28bfb1795b2c2"),
        ({"model.head.kind": "flow"}, "334afc14487cd165"),
        ({"model.chunk_size": 2}, "2ce586ae0bd072b4"),
    ],
)
def test_identities_are_those_of_0_1_0(settings: dict[str, Any], expected: str) -> None:
    experiment = Experiment.model_validate(assign(PRESETS["tiny"], settings))
    assert LanguageModelWorkload(experiment, 1000).identity == expected


def test_settings_of_other_families_are_not_written() -> None:
    """What is hashed must not grow with the number of families."""
    for kind, sections in [("token", {"head"}), ("calm", {"head"})]:
        written = Experiment.model_validate({"model": {"kind": kind}}).model.model_dump(mode="json")
        assert {"head", "decoder", "denoiser", "custom"} & set(written) == sections
        read_again = Experiment.model_validate({"model": written})
        assert identity(read_again.model) == identity(written)


def test_a_raised_revision_of_a_family_is_another_stage() -> None:
    def stage_of(kind: str) -> dict[str, Any]:
        experiment = Experiment.model_validate(assign(PRESETS["tiny"], {"model.kind": kind}))
        return dict(stages_for(experiment)["language_model"].config)

    assert "family_revision" not in stage_of("token")
    assert stage_of("patch")["family_revision"] == 2
