"""A GPU that is pretended, and text for small trainings on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Markov, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.tokens import write_tokens
from tests.gpu.pretended_gpu import PretendedGpu, pretended_gpu


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_corpus(Corpus(source="markov", markov=Markov(num_documents=20, document_length=40)), folder / "corpus")
    write_tokens(Tokens(), folder / "corpus", folder / "tokens")
    return folder / "tokens"
