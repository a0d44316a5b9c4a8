from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.kinds.autoencoder import autoencoder_experiment
from pipelines.study.kinds.language_model import language_model_experiment

ALL = ["corpus", "tokens", "autoencoder", "language_model", "evaluation", "samples"]


@pytest.fixture
def base(tiny_study: Callable[..., Study]) -> Experiment:
    return tiny_study(samples={}).experiment()


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"seed": 1}, ALL[2:]),
        ({"corpus.split_seed": 1}, ALL),
        ({"corpus.text_field": "body"}, []),  # no such field in a synthetic language
        ({"tokens.shard_tokens": 100}, ALL[1:]),
        ({"tokens.vocab_size": 300}, []),  # bytes have their own
        ({"autoencoder.latent_size": 4}, ALL[2:]),
        ({"model.chunk_size": 2}, ALL[2:]),
        ({"model.head.alpha": 1.5}, ALL[3:]),
        ({"model.training.learning_rate": 1e-4}, ALL[3:]),
        ({"evaluation.seed": 3}, ["evaluation"]),
        ({"samples.num_tokens": 5}, ["samples"]),
    ],
)
def test_a_setting_changes_the_stages_that_depend_on_it(
    base: Experiment, settings: dict[str, Any], changed: list[str]
) -> None:
    before, after = stages_for(base), stages_for(apply_settings(base, settings))
    assert [kind for kind in before if before[kind] != after[kind]] == changed


def test_token_models_need_no_autoencoder_and_do_not_depend_on_one(base: Experiment) -> None:
    token = apply_settings(base, {"model.kind": "token"})
    other = apply_settings(token, {"autoencoder.latent_size": 4, "model.head.alpha": 1.5})
    assert list(stages_for(token)) == ["corpus", "tokens", "language_model", "evaluation", "samples"]
    assert stages_for(token)["evaluation"] == stages_for(other)["evaluation"]


def test_what_is_asked_for_beside_the_score_is_a_stage_of_its_own(base: Experiment) -> None:
    plain = stages_for(apply_settings(base, {"samples.num_prompts": 0}))
    assert list(plain) == ALL[:5]
    tasks = stages_for(apply_settings(base, {"benchmarks.tasks": ["stdlib_choice"]}))
    assert list(tasks) == [*ALL, "benchmarks"]
    assert tasks["language_model"] == plain["language_model"]
    path = stages_for(apply_settings(base, {"trajectory": {"snapshots": 3}}))
    assert list(path) == [*ALL, "trajectory"]
    # A training that keeps models along the way leaves another folder behind.
    assert path["language_model"] != plain["language_model"]
    longer = stages_for(apply_settings(base, {"trajectory": {"snapshots": 3, "num_samples": 7}}))
    assert longer["language_model"] == path["language_model"]
    assert longer["trajectory"] != path["trajectory"]
    trajectory = language_model_experiment(path["language_model"]).trajectory
    assert trajectory is not None
    assert trajectory.snapshots == 3


def test_a_corpus_is_named_by_content_not_by_place(
    base: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("some text\n\nand more\n" * 20)
    monkeypatch.chdir(tmp_path)
    one = stages_for(apply_settings(base, {"corpus.source": "one.txt"}))["corpus"]
    two = stages_for(apply_settings(base, {"corpus.source": str(tmp_path / "two.txt")}))["corpus"]
    assert one == two
    assert one.settings["corpus"]["source"] == str(tmp_path / "one.txt"), "a worker may run in another folder"
    (tmp_path / "two.txt").write_text("other text")
    assert stages_for(apply_settings(base, {"corpus.source": "two.txt"}))["corpus"] != one


def test_stages_run_from_what_their_identity_covers(base: Experiment) -> None:
    graph = stages_for(apply_settings(base, {"model.chunk_size": 2, "seed": 7}))
    experiment = autoencoder_experiment(graph["autoencoder"])
    assert (experiment.seed, experiment.model.chunk_size, experiment.autoencoder.latent_size) == (7, 2, 8)
    experiment = language_model_experiment(graph["language_model"])
    assert (experiment.seed, experiment.model.chunk_size, experiment.autoencoder.chunk_size) == (7, 2, 2)
    assert experiment.model.head == base.model.head
