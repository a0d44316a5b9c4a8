"""Text and an autoencoder for trainings that take a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.config import Corpus, Markov, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.tokens import write_tokens
from calm_bench.training import train_autoencoder
from tests.calm_bench.training.tiny_trainings import Trainings, experiment, never


@pytest.fixture(scope="session")
def tiny_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    markov = Markov(num_documents=30, document_length=60)
    write_corpus(Corpus(source="markov", markov=markov), folder / "corpus")
    write_tokens(Tokens(), folder / "corpus", folder / "tokens")
    return folder / "tokens"


@pytest.fixture(scope="session")
def trainings(tiny_tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    folder = tmp_path_factory.mktemp("trained")
    train_autoencoder(experiment("energy"), tiny_tokens, folder / "autoencoder", "cpu", never)
    return Trainings(tiny_tokens, folder / "autoencoder", folder)
