"""A path may be given as text wherever the public functions take one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from calm_bench.autoencoder import Autoencoder, load_autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import read_documents, write_corpus
from calm_bench.lm import load_language_model
from calm_bench.tokens import TokenStream, load_tokenizer, read_manifest, write_tokens
from calm_bench.training import train_autoencoder, train_language_model

PUBLIC = (
    "calm_bench",
    "calm_bench.autoencoder",
    "calm_bench.corpora",
    "calm_bench.export",
    "calm_bench.lm",
    "calm_bench.pretrained",
    "calm_bench.tokens",
    "calm_bench.training",
    "evals.any_sampler",
    "evals.evaluate",
    "evals.protocol",
    "evals.samplers",
    "pipelines.store.opening",
    "pipelines.store.store",
)
"""What the reference of the Python interface lists, and the packages below it that say what they offer."""


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions and methods without a leading underscore, by name."""
    for place in PUBLIC:
        module = import_module(place)
        names = getattr(module, "__all__", None)
        if names is None:
            names = [
                name
                for name, value in vars(module).items()
                if getattr(value, "__module__", None) == place and not name.startswith("_")
            ]
        for name in names:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{place}.{name}", value
            elif inspect.isclass(value) and value.__module__.partition(".")[0] in {"calm_bench", "evals", "pipelines"}:
                for member in (member for member in vars(value) if not member.startswith("_")):
                    function = inspect.unwrap(getattr(value, member)) if callable(getattr(value, member)) else None
                    if inspect.isfunction(function) or inspect.ismethod(function):
                        yield f"{place}.{name}.{member}", function


def test_no_public_function_wants_a_path_object() -> None:
    found = dict(public_functions())
    assert {"calm_bench.load_model", "calm_bench.Study.from_yaml", "calm_bench.tokens.load_tokenizer"} <= set(found)
    refusing = [
        f"{name}({parameter.name}: {parameter.annotation})"
        for name, function in found.items()
        for parameter in inspect.signature(function).parameters.values()
        if re.search(r"\bPath\b", text := str(parameter.annotation)) and not re.search(r"\bstr\b", text)
    ]
    assert refusing == []


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny corpus' tokens, all of it written by text."""
    place = str(tmp_path_factory.mktemp("text"))
    corpus = Corpus.model_validate({"source": "markov", "markov": {"num_documents": 60, "document_length": 200}})
    write_corpus(corpus, f"{place}/corpus")
    assert next(read_documents(f"{place}/corpus", "train"))
    write_tokens(Tokens(tokenizer="bytes"), f"{place}/corpus", f"{place}/tokens")
    return f"{place}/tokens"


def test_tokens_are_read(tokens: str) -> None:
    tokenizer = load_tokenizer(f"{tokens}/tokenizer")
    stream = TokenStream.open(tokens, "train")
    assert stream.vocab_size == read_manifest(tokens)["vocab_size"] == tokenizer.vocab_size
    tokenizer.save(f"{tokens}/again")
    assert load_tokenizer(f"{tokens}/again").digest == tokenizer.digest


def test_an_autoencoder_comes_back(tmp_path: Path) -> None:
    config = AutoencoderConfig.model_validate({"training": {"num_steps": 1}})
    model = Autoencoder(config, 2, 257)
    model.save(f"{tmp_path}/model")
    again = load_autoencoder(f"{tmp_path}/model")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_models_are_trained_and_read(tokens: str, tmp_path: Path) -> None:
    training = {"num_steps": 1, "batch_size": 1, "sequence_length": 32, "validation_batches": 1, "warmup_steps": 0}
    experiment = Experiment.model_validate(
        {"autoencoder": {"training": training}, "model": {"kind": "calm", "chunk_size": 2, "training": training}}
    )
    train_autoencoder(experiment, tokens, f"{tmp_path}/autoencoder", "cpu", lambda: False)
    place = f"{tmp_path}/language_model"
    train_language_model(experiment, tokens, f"{tmp_path}/autoencoder", place, "cpu", lambda: False)
    model = load_language_model(f"{place}/model")
    model.save(f"{tmp_path}/copy")
    assert load_language_model(f"{tmp_path}/copy").chunk_size == model.chunk_size == 2
