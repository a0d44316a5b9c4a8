"""One small study of all families that ship, and every place where a model of any of them is to be of use."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance

import calm_bench as cb
from calm_bench.export import ExportError
from calm_bench.family_registry import FAMILIES
from calm_bench.overrides import ConfigurationError
from evals.harness import CalmBenchLM
from evals.harness_reader import HarnessSettings
from pipelines.results.looks import key_of, looks_of
from pipelines.scoring.exporting import export_model
from pipelines.scoring.models import find_model
from pipelines.store.opening import open_store
from pipelines.tracking.description import trial_note

pytestmark = pytest.mark.slow

LABELS = {
    "token": "token",
    "calm": "K=2",
    **{name: f"{name} K=2" for name in ("patch", "multi_token", "block_diffusion")},
}
FLOPS = 3e8
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> cb.Study:
    choices = ", ".join(
        f"{label}: {{model.kind: {kind}{'' if kind == 'token' else ', model.chunk_size: 2'}}}"
        for kind, label in LABELS.items()
    )
    return cb.Study.from_yaml(
        "smoke",
        f"search.parameters=[{{name: model, choices: {{{choices}}}}}]",
        f"model.training.num_flops={FLOPS:g}",
        "autoencoder.training.num_steps=5",
        "evaluation.max_windows=8",
        "samples.num_prompts=1",
        "samples.num_tokens=8",
        "tracking.enabled=false",
        store=tmp_path_factory.mktemp("families") / "runs",
    )


@pytest.fixture(scope="module")
def study(planned: cb.Study) -> cb.StudyResult:
    return planned.run(local=True, quiet=True)


def test_every_family_that_ships_is_here() -> None:
    assert {*LABELS, "custom"} == set(FAMILIES.built_in)


def test_they_are_planned_priced_and_trained_with_equal_budgets(planned: cb.Study, study: cb.StudyResult) -> None:
    assert {row.label for row in study} == set(LABELS.values())
    assert {row.kind for row in study} == set(LABELS)
    spent = {row.label: row.training_flops for row in study}
    for row in study:
        assert row.training_flops == pytest.approx(FLOPS, rel=0.5), spent
        assert row.inference_flops_per_token
        assert row.parameters
        assert row.generated_tokens_per_second
    total = sum(row.training_flops or 0 for row in study)
    autoencoder = max(row.autoencoder_training_flops or 0 for row in study)
    assert planned.plan().training_flops == pytest.approx(total + autoencoder, rel=1e-6)


def test_a_legend_tells_them_apart(study: cb.StudyResult) -> None:
    looks = looks_of(list(study))
    found = [looks[key_of(row)] for row in study]
    assert len({(look.colour, look.marker) for look in found}) == len(LABELS)
    assert {look.name for look in found} == set(LABELS.values())


@pytest.mark.parametrize("kind", LABELS)
def test_mlflow_says_what_it_is(kind: str, study: cb.StudyResult) -> None:
    row = next(row for row in study if row.kind == kind)
    said = "Token model" if kind == "token" else LABELS[kind]
    assert said in trial_note(row)


@pytest.mark.parametrize("kind", LABELS)
def test_it_writes_at_any_temperature_and_is_handed_on(kind: str, study: cb.StudyResult, tmp_path: Path) -> None:
    own = study.load_model(LABELS[kind])
    folder = tmp_path / "exported"
    store = open_store(str(study.store))
    export_model(LABELS[kind], find_model(LABELS[kind], store), store, folder)
    loaded = cb.load_model(folder)
    for temperature in (1.0, 0.6):
        text = own.generate("abab", 12, temperature=temperature)
        assert loaded.generate("abab", 12, temperature=temperature) == text
    assert LABELS[kind] in (folder / "README.md").read_text()
    if kind != "calm":
        with pytest.raises(ExportError, match="only autoencoders and CALM models are exported"):
            export_model("again", find_model(LABELS[kind], store), store, tmp_path / "released", "released")
        assert not (tmp_path / "released").exists()


@pytest.mark.parametrize("kind", LABELS)
def test_lm_eval_has_its_answers_or_why_there_are_none(kind: str, study: cb.StudyResult) -> None:
    own = study.load_model(LABELS[kind])
    if kind == "block_diffusion":
        with pytest.raises(ConfigurationError, match="no exact likelihood, and has no latents"):
            CalmBenchLM(own.network, own.tokenizer)
        return
    harness = CalmBenchLM(own.network, own.tokenizer, HarnessSettings(num_samples=4))
    asked = [Instance("loglikelihood", {}, ("abcab", answer), 0) for answer in ("cab", "c", "ab")]
    answers = harness.loglikelihood(asked)
    assert all(math.isfinite(value) for value, _ in answers)
    if own.network.likelihood == "exact":
        # A longer continuation of the same text is less likely.
        assert answers[0][0] < answers[1][0] < 0


@pytest.mark.parametrize("kind", LABELS)
def test_the_documentation_says_what_it_is(kind: str) -> None:
    assert f"`{kind}`" in (DOCS / "chunk-or-vector.md").read_text()
