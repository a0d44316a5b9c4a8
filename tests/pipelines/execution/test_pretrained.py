"""Autoencoders and language models from a folder, in place of trained ones and to go on training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calm_bench.export import export_reference
from calm_bench.opening import open_network
from calm_bench.overrides import ConfigurationError
from calm_bench.tokens.bpe import BpeTokenizer
from pipelines.planning.planner import plan_study
from pipelines.results.entry import Entry, entry_from
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.price import price_of
from pipelines.study.trial import TrialOutcome

Run = Callable[..., list[TrialOutcome]]
FLOPS = 12345.0


def of(label: str, **settings: Any) -> dict[str, Any]:
    return {"parameters": [{"name": "model", "choices": {label: settings}}]}


CALM = of("K=2", **{"model.chunk_size": 2})
TOKEN = of("token", **{"model.kind": "token"})


@pytest.fixture
def study(tiny_study: Callable[..., Study]) -> Callable[..., Study]:
    """Of one row; keywords are settings by section that are put over the tiny ones."""
    usual = tiny_study().model_dump(mode="json")

    def make(search: dict[str, Any], **sections: dict[str, Any]) -> Study:
        return tiny_study(search=search, **{name: usual[name] | section for name, section in sections.items()})

    return make


@pytest.fixture
def row(run: Run) -> Callable[[Study], tuple[Entry, TrialOutcome]]:
    def make(study: Study) -> tuple[Entry, TrialOutcome]:
        (outcome,) = run(study)
        assert outcome.state == "complete", outcome.error
        return entry_from(outcome, study), outcome

    return make


def folder_of(outcome: TrialOutcome, kind: str) -> Path:
    folder = outcome.folders[kind]
    assert folder is not None
    return Path(folder) / "model"


def test_an_autoencoder_from_a_folder_is_the_one_that_was_trained(
    row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study], tmp_path: Path
) -> None:
    trained, before = row(study(CALM))
    own, inside = (folder_of(before, kind) for kind in ("autoencoder", "language_model"))
    for source in (own, inside):
        # Another latent size is configured: the folder's counts.
        described = study(
            CALM, autoencoder={"latent_size": 4, "pretrained": {"folder": str(source), "training_flops": FLOPS}}
        )
        assert described.autoencoder.latent_size == 8
        entry, outcome = row(described)
        result = outcome.results["autoencoder"]
        assert (result["steps"], result["training_flops"]) == (0, FLOPS)
        assert result["accuracy"] == before.results["autoencoder"]["accuracy"]
        assert result["probes"] == before.results["autoencoder"]["probes"]
        taken, original = (
            load_file(folder / "model.safetensors") for folder in (folder_of(outcome, "autoencoder"), own)
        )
        assert all((taken[name] == tensor).all() for name, tensor in original.items())
        # The same latents train the same model.
        assert outcome.results["language_model"]["final_loss"] == before.results["language_model"]["final_loss"]
        assert entry.brierlm == trained.brierlm
        assert entry.total_training_flops == trained.training_flops + FLOPS
        assert (entry.pretrained, trained.pretrained) == ("autoencoder", "")
        price = price_of(described.experiment().model_copy(update={"model": outcome.experiment.model}))  # type: ignore[union-attr]
        assert price.autoencoder is not None
        assert price.autoencoder.flops.total == FLOPS


def test_a_released_autoencoder_is_taken_too(
    row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study], tmp_path: Path
) -> None:
    _, before = row(study(CALM))
    export_reference(open_network(folder_of(before, "language_model"), "cpu"), tmp_path / "released", eos_id=5)
    released = tmp_path / "released" / "autoencoder"
    described = study(CALM, autoencoder={"pretrained": {"folder": str(released)}})
    _, outcome = row(described)
    assert outcome.results["autoencoder"]["accuracy"] == before.results["autoencoder"]["accuracy"]


@pytest.mark.parametrize("search", [TOKEN, CALM], ids=["token", "calm"])
def test_a_model_from_a_folder_is_trained_on(
    search: dict[str, Any], row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study]
) -> None:
    first, before = row(study(search))
    source = {"folder": str(folder_of(before, "language_model")), "training_flops": FLOPS}
    sections = {"model": {"num_layers": 3, "pretrained": source}}
    if search is CALM:
        sections["autoencoder"] = {"pretrained": {"folder": source["folder"]}}
    described = study(search, **sections)
    assert described.model.num_layers == 1
    entry, outcome = row(described)
    own, begun = (result.results["language_model"] for result in (outcome, before))
    assert own["validation"]["loss"] < begun["validation"]["loss"]
    assert entry.training_flops == first.training_flops + FLOPS
    assert entry.pretrained == ("autoencoder, model" if search is CALM else "model")
    # What was begun from is no part of the new model's own description.
    saved = json.loads((folder_of(outcome, "language_model") / "config.json").read_text())
    assert "pretrained" not in saved["model"]
    open_network(folder_of(outcome, "language_model"), "cpu")


def test_content_is_identity_and_not_the_path(
    row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study], tmp_path: Path
) -> None:
    _, before = row(study(TOKEN))
    folder = folder_of(before, "language_model")
    copy = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, copy)

    def identity(source: Path) -> str:
        described = study(TOKEN, model={"kind": "token", "pretrained": {"folder": str(source)}})
        return stages_for(described.experiment())["language_model"].identity

    assert identity(folder) == identity(copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert identity(folder) != identity(copy)


def test_a_model_of_another_autoencoder_is_refused_before_that_is_trained(
    run: Run, row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study], store: Store
) -> None:
    _, before = row(study(CALM))
    model, autoencoder = (folder_of(before, kind) for kind in ("language_model", "autoencoder"))

    def planned(described: Study) -> str | None:
        (trial,) = plan_study(described, store).trials
        return trial.error

    from_folder = {"folder": str(model)}
    other = study(CALM, model={"pretrained": from_folder}).model_copy(update={"seed": 5})
    told = planned(other)
    assert "trained on another autoencoder, whose latents mean something else" in str(told)
    advised = re.search(r"set autoencoder\.pretrained\.folder=(\S+) too", str(told))
    assert advised is not None
    (outcome,) = run(other)
    assert (outcome.state, outcome.error, outcome.results) == ("invalid", told, {}), "nothing was trained for it"
    # The other autoencoder is there, by itself and as a folder: weights tell.
    _, trained = row(other.model_copy(update={"model": study(CALM).model}))
    its_folder = {"folder": str(folder_of(trained, "autoencoder"))}
    assert planned(other) == told
    assert planned(study(CALM, autoencoder={"pretrained": its_folder}, model={"pretrained": from_folder})) == told
    # As it is advised; the study's own; and a copy of the model, whose weights tell.
    copy = autoencoder.parents[3] / "copy"
    shutil.copytree(model, copy)
    for sections in (
        {"autoencoder": {"pretrained": {"folder": advised[1]}}, "model": {"pretrained": from_folder}},
        {"model": {"pretrained": from_folder}},
        {"model": {"pretrained": {"folder": str(copy)}}},
    ):
        assert planned(study(CALM, **sections)) is None
    shutil.rmtree(autoencoder.parent)
    assert planned(study(CALM, model={"pretrained": from_folder})) is None, "the very same will be trained"


def test_what_cannot_be_is_refused_before_anything_runs(
    run: Run, row: Callable[[Study], tuple[Entry, TrialOutcome]], study: Callable[..., Study], store: Store
) -> None:
    nowhere = study(TOKEN, model={"kind": "token", "pretrained": {"folder": "nowhere"}})
    with pytest.raises(ConfigurationError, match=r"model\.pretrained\.folder: nowhere is no model folder"):
        stages_for(nowhere.experiment())
    _, before = row(study(CALM))
    own = str(folder_of(before, "autoencoder"))
    other = study(CALM, autoencoder={"pretrained": {"folder": own}}, model={"chunk_size": 4})
    with pytest.raises(ConfigurationError, match=r"packs 2 tokens, and model\.chunk_size is 4"):
        stages_for(other.experiment())
    # Another tokenizer than it was trained with: known from its folder, or as soon as there are tokens.
    source = {"folder": str(folder_of(before, "language_model"))}
    of_bytes = {"search": CALM, "autoencoder": {"pretrained": source}, "model": {"pretrained": source}}
    tokenizer = store.folder(before.graph["tokens"]) / "tokenizer"  # type: ignore[index]
    BpeTokenizer.train(["some words and some other words"] * 9, 270).save(tokenizer.parents[3] / "words")
    for tokens in ({"tokenizer": str(tokenizer.parents[3] / "words")}, {"tokenizer": "bpe", "vocab_size": 300}):
        described = study(**of_bytes, tokens=tokens)
        (trial,) = plan_study(described, store).trials
        told = trial.error
        if tokens["tokenizer"] == "bpe":
            assert told is None, "how many entries it finds nobody knows"
            (outcome,) = run(described)
            assert outcome.state == "failed"
            assert not {"autoencoder", "language_model"} & outcome.results.keys()
            told = outcome.error
        assert "has a vocabulary of 257 tokens, and the text's tokenizer one of" in str(told)
    (trial,) = plan_study(study(**of_bytes, tokens={"tokenizer": str(tokenizer)}), store).trials
    assert trial.error is None, "as it is advised"
    with pytest.raises(ConfigurationError, match=r"latent_size=99 would not reach the model: .* one with 8"):
        resolve_study("smoke", [f"autoencoder.pretrained.folder={own}", "autoencoder.latent_size=99"])
    with pytest.raises(ConfigurationError, match=r"training_flops are those of a trained part: name its folder too"):
        resolve_study("smoke", ["model.pretrained.training_flops=1e9"])
