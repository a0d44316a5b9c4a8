"""Texts are called without the folders of the machine they lie on."""

from __future__ import annotations

import pytest

from pipelines.common.corpus_name import corpus_name


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("stdlib", "stdlib"),
        ("hf:Salesforce/wikitext", "Salesforce/wikitext"),
        ("hf:/home/ada/set", "set"),
        ("/home/ada/secret-project/text.jsonl", "text.jsonl"),
        ("data/text.txt", "text.txt"),
        ("https://ada:pass@host.example/x/text.txt", "text.txt"),
    ],
)
def test_corpora_are_called_without_folders(source: str, expected: str) -> None:
    assert corpus_name(source) == expected
