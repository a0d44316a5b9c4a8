"""From a setting to a plug-in, and what enters an identity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CORPORA, CorpusError, Document, Skipped, identity_config, source_name, write_corpus


def test_names_prefixes_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_name("stdlib") == "stdlib"
    assert source_name("hf:anything/at-all") == "hf"
    assert source_name(str(tmp_path)) == "local"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdlib").mkdir()
    assert source_name("stdlib") == "stdlib"
    assert source_name("./stdlib") == "local"
    assert {"hf", "local", "markov", "stdlib"} <= set(CORPORA.names())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("stdlb", "did you mean 'stdlib'"),
        ("marcov", "did you mean 'markov'"),
        ("/no/such/place", "neither a corpus, an existing file or folder, an address, nor hf:NAME"),
        ("", "known: .*markov, .*stdlib"),
        ("local", "give the path itself"),
        ("hf", "hf:NAME"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest(source: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        source_name(source)


def test_only_settings_that_matter_enter_the_identity(tmp_path: Path) -> None:
    markov = Corpus(source="markov")
    assert identity_config(markov.model_copy(update={"text_field": "body"})) == identity_config(markov)
    assert identity_config(Corpus(source="markov", markov={"order": 2})) != identity_config(markov)
    local = Corpus(source=str(tmp_path))
    assert str(tmp_path) not in str(identity_config(local))
    assert identity_config(Corpus(source=str(tmp_path), text_field="body")) != identity_config(local)
    assert "markov" not in identity_config(local)


class Counting:
    """What another distribution would register."""

    fields: tuple[str, ...] = ("subset",)

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        return {"version": 1}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        skipped.add("too round", "number:0")
        return (Document(f"{config.subset} {number}", f"number:{number}") for number in range(1, 60))


def test_a_plug_in_is_a_corpus_like_any_other(tmp_path: Path) -> None:
    CORPORA.register("counting-for-a-test", Counting())
    config = Corpus(source="counting-for-a-test", subset="number")
    report = write_corpus(config, tmp_path)
    assert sum(report.documents.values()) == 59
    assert report.skipped == {"too round": 1}
    assert identity_config(config)["subset"] == "number"
