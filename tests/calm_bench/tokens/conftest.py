"""A corpus on disk whose tokens are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.tokens import TokensReport, write_tokens

Written = tuple[Path, TokensReport]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[str], Tokens], Written]:
    """Write texts as the train split and tokenise them."""

    def _write(texts: list[str], config: Tokens) -> Written:
        (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        corpus = Corpus(source=str(tmp_path / "texts.jsonl"), validation_fraction=0, test_fraction=0)
        write_corpus(corpus, tmp_path / "corpus")
        folder = tmp_path / "tokens"
        return folder, write_tokens(config, tmp_path / "corpus", folder)

    return _write
