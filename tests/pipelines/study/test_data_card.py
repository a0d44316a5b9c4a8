"""The data card tells what the corpus and the tokens are made of, whatever stands in the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus, Experiment
from calm_bench.corpora.data_card import CARD
from pipelines.study.graph import stages_for
from pipelines.study.kinds.corpus import run_corpus
from pipelines.study.kinds.tokens import run_tokens
from pipelines.study.stage_context import StageContext


def cards(corpus: Corpus, folder: Path) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    graph = stages_for(Experiment(corpus=corpus))
    for name in ("corpus", "tokens"):
        (folder / name).mkdir(parents=True)
    written = run_corpus(graph["corpus"], {}, folder / "corpus", StageContext())
    tokens = run_tokens(graph["tokens"], {"corpus": folder / "corpus"}, folder / "tokens", StageContext())
    return (folder / "corpus" / CARD).read_text(), (folder / "tokens" / CARD).read_text(), written, tokens


def rows(card: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")]


def test_a_card_of_one_source(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(90)]
    lines = [*texts, *texts[:5], "*tiny* | <b>"]
    (tmp_path / "a_b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*lines, ""]))
    quality = {"duplicates": "exact", "min_letters": 0.3}
    config = Corpus(source=str(tmp_path / "a_b.jsonl"), license="CC-BY-4.0", quality=quality)
    card, with_tokens, written, tokens = cards(config, tmp_path / "out")
    source = next(row for row in rows(card) if row[0] == "a&#95;b.jsonl")
    assert source[1:2] + source[3:5] == ["1", "CC-BY-4.0", f"{sum(written['documents'].values()):,}"]
    assert str(tmp_path) not in with_tokens
    assert ["exact copy of an earlier document", "5"] in [row[:2] for row in rows(card)]
    assert ["empty document", "1", "a&#95;b.jsonl:97"] in rows(card)
    assert ["quality.duplicates", "exact"] in rows(card)
    assert written["digest"] in card
    assert with_tokens.startswith(card)
    assert [row[0:2] for row in rows(with_tokens)[-3:]] == [
        [split, f"{tokens['tokens'][split]:,}"] for split in ("train", "validation", "test")
    ]
    # A licence is said of a text, and does not make another of it.
    unlicensed = config.model_copy(update={"license": None})
    assert (
        stages_for(Experiment(corpus=unlicensed))["corpus"].identity
        == stages_for(Experiment(corpus=config))["corpus"].identity
    )


def test_a_card_of_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(200)))
    sources = [{"source": str(tmp_path / "a.jsonl"), "weight": 1}, {"source": "markov", "weight": 3}]
    card, with_tokens, _, tokens = cards(Corpus(mixture=sources), tmp_path / "out")
    assert [row[:2] for row in rows(card)[2:4]] == [["a.jsonl", "0.25"], ["markov", "0.75"]]
    taken = tokens["mixture"]["train"]
    assert ["train", "1", f"{taken[1]['tokens']:,}", f"{taken[1]['available']:,}"] in rows(with_tokens)
    assert "Nothing." in card


def test_a_card_of_a_mixture_has_the_settings_of_each_source(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"a_b": f"text {number}", "text": "no"}) + "\n" for number in range(200))
    (tmp_path / "a.jsonl").write_text(lines)
    sources = [
        {"source": str(tmp_path / "a.jsonl"), "weight": 1, "text_field": "a_b", "max_documents": 150},
        {"source": "markov", "weight": 3},
    ]
    card, *_ = cards(Corpus(mixture=sources, split_seed=7), tmp_path / "out")
    settings = rows(card.partition("## Settings")[2])
    assert settings[2:5] == [["validation_fraction", "0.05"], ["test_fraction", "0.1"], ["split_seed", "7"]]
    assert settings[5:] == [
        ["source", "setting", "value"],
        ["---", "---", "---"],
        ["a.jsonl", "text_field", "a&#95;b"],
        ["a.jsonl", "split", "train"],
        ["a.jsonl", "max_documents", "150"],
        ["markov", "text_field", "text"],
        ["markov", "split", "train"],
    ]
