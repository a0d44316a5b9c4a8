"""A mixture has exactly the shares of tokens that it is asked for, and the text of its sources."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from calm_bench.config import Corpus, Tokens
from calm_bench.corpora import CorpusError, corpus_dependencies, divisible_bytes, identity_config, write_corpus
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora.mixture import read_mixture, shares_of, tokens_to_take
from calm_bench.tokens import TokensReport, TokenStream, write_tokens


def lines(path: Path, letter: str, count: int, field: str = "text") -> str:
    texts = [f"{letter * (number % 50)} {number}" for number in range(count)]
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        {"source": lines(tmp_path / "a.jsonl", "a", 400), "weight": 3},
        {"source": lines(tmp_path / "b.jsonl", "b", 900, "body"), "weight": 1.5, "text_field": "body"},
        {"source": "markov", "weight": 0.5, "max_documents": 300},
    ]


def mixed(sources: list[dict[str, Any]], folder: Path, **settings: Any) -> TokensReport:
    config = Corpus(mixture=sources, validation_fraction=0.2, test_fraction=0.2, **settings)
    report = write_corpus(config, folder / "corpus")
    assert [member["source"] for member in report.as_dict()["mixture"]] == [one["source"] for one in sources]
    return write_tokens(Tokens(shard_tokens=999), folder / "corpus", folder / "tokens")


@pytest.mark.parametrize("part_bytes", [3000, 2**26])
def test_shares_are_exact_to_a_token(
    tmp_path: Path, sources: list[dict[str, Any]], part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_parts_module, "PART_BYTES", part_bytes)
    report = mixed(sources, tmp_path / "out")
    assert report.mixture is not None
    for split, found in report.mixture.items():
        total = min(int(one["available"] / share) for one, share in zip(found, (0.6, 0.3, 0.1), strict=True))
        assert [one["tokens"] for one in found] == [total * 6 // 10, total * 3 // 10, total // 10]
        stream = TokenStream.open(tmp_path / "out" / "tokens", split)
        assert len(stream) == report.tokens[split] == sum(one["tokens"] for one in found)
        ids = stream[:]
        ends = stream.document_ends
        assert ids[ends - 1].tolist() == [stream.eos_id] * len(ends)
        assert (ids == stream.eos_id).sum() == len(ends)
        # Where a source ends, a document does.
        first, second = found[0]["tokens"], found[0]["tokens"] + found[1]["tokens"]
        assert {first, second, len(stream)} <= set(ends.tolist())
        texts = [bytes(ids[start:stop][ids[start:stop] < 256].tolist()) for start, stop in
                 ((0, first), (first, second))]  # fmt: skip
        assert (b"b" in texts[0], b"a" in texts[0]) == (False, True)
        assert (b"b" in texts[1], b"a" in texts[1]) == (True, False)
        # Also where a source is cut in the middle of a document, or right behind one.
        manifest = json.loads((tmp_path / "out" / "tokens" / "manifest.json").read_text())
        assert manifest["splits"][split]["bytes"] == (ids < 256).sum()
        assert report.bytes_per_token[split] == 1


def test_parts_of_the_input_change_nothing(
    tmp_path: Path, sources: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(sources, tmp_path / "one")
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 3000)
    mixed(sources, tmp_path / "many")
    for split in ("train", "validation", "test"):
        digests = {TokenStream.open(tmp_path / name / "tokens", split).digest for name in ("one", "many")}
        assert len(digests) == 1


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 10**7)), min_size=1, max_size=6))
def test_no_source_gives_more_than_it_has(sources: list[tuple[int, int]]) -> None:
    weights, available = zip(*sources, strict=True)
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    taken = tokens_to_take(shares, available)
    assert all(0 <= mine <= have for mine, have in zip(taken, available, strict=True))
    # One source is used up, to the tokens that one step more of the total would cost.
    assert any(have - mine <= share + 1 for mine, have, share in zip(taken, available, shares, strict=True))
    total = sum(taken)
    assert all(abs(mine - share * total) <= len(sources) for mine, share in zip(taken, shares, strict=True))


def test_identity_knows_shares_and_contents_and_no_paths(tmp_path: Path, sources: list[dict[str, Any]]) -> None:
    config = Corpus(mixture=sources)
    doubled = Corpus(mixture=[one | {"weight": 2 * one["weight"]} for one in sources])
    assert identity_config(doubled) == identity_config(config)
    assert shares_of(config) == (Fraction(6, 10), Fraction(3, 10), Fraction(1, 10))
    other = Corpus(mixture=[sources[0] | {"weight": 4}, *sources[1:]])
    assert identity_config(other) != identity_config(config)
    assert str(tmp_path) not in json.dumps([identity_config(config), corpus_dependencies(config)])
    before = corpus_dependencies(config)
    lines(tmp_path / "a.jsonl", "A", 400)
    assert corpus_dependencies(config) != before
    assert divisible_bytes(config) > 10_000
    assert Corpus.model_validate(config.model_dump(mode="json")) == config
    assert "mixture" not in Corpus().model_dump()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "stdlib"}, r"corpus\.source=stdlib and corpus\.mixture exclude each other"),
        ({"text_field": "body"}, r"corpus\.text_field and corpus\.mixture exclude each other"),
        ({"max_documents": 3}, r"corpus\.max_documents and corpus\.mixture"),
        ({"mixture": [], "source": "mixture"}, r"corpus\.source=mixture needs corpus\.mixture"),
        ({"mixture": [{"source": "markov", "weight": 0}]}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Corpus(**{"mixture": [{"source": "markov", "weight": 1}], **settings})


def test_a_source_without_text_is_named(tmp_path: Path, sources: list[dict[str, Any]]) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl has the field 'body'"):
        mixed([sources[0] | {"text_field": "body"}, *sources[1:]], tmp_path)


def test_a_damaged_list_of_sources_is_named(tmp_path: Path, sources: list[dict[str, Any]]) -> None:
    mixed(sources, tmp_path)
    path = tmp_path / "corpus" / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mixture": {}}))
    with pytest.raises(CorpusError, match="does not tell its sources"):
        read_mixture(tmp_path / "corpus")
