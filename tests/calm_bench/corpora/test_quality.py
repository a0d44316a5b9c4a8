"""What is left out of a corpus on request: each reason by documents that were made for it, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from calm_bench.config import Corpus, Quality
from calm_bench.corpora import SPLITS, CorpusError, CorpusReport, identity_config, read_documents, write_corpus
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora.near_duplicates import PERMUTATIONS, bands_for, earlier_likes, signature
from calm_bench.corpora.word_runs import word_runs

WORDS = [f"word{number}" for number in range(2000)]


def words(generator: random.Random, count: int) -> list[str]:
    return generator.choices(WORDS, k=count)


def written(path: Path, records: Sequence[Any], out: Path, **quality: Any) -> tuple[dict[str, list[str]], CorpusReport]:
    records = [{"text": one} if isinstance(one, str) else one for one in records]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    report = write_corpus(Corpus(source=str(path), validation_fraction=0.2, test_fraction=0.2, quality=quality), out)
    return {split: list(read_documents(out, split)) for split in SPLITS}, report


def texts_in(found: dict[str, list[str]]) -> list[str]:
    return sorted(text for texts in found.values() for text in texts)


@pytest.mark.parametrize(
    ("quality", "left_out", "reason"),
    [
        ({"min_characters": 30}, ["short"], "document below quality.min_characters"),
        ({"max_characters": 500}, ["long " * 200], "document above quality.max_characters"),
        ({"min_letters": 0.5}, ["12 345 67 890 1 2 3 4 a b c 77 88 99"], "document with too few letters"),
    ],
)
def test_filters_of_single_documents(tmp_path: Path, quality: dict[str, Any], left_out: list[str], reason: str) -> None:
    kept = [f"an ordinary document of some words, number {number}" for number in range(60)]
    found, report = written(tmp_path / "a.jsonl", [*kept, *left_out], tmp_path / "out", **quality)
    assert texts_in(found) == sorted(kept)
    [(said, count)] = report.skipped.items()
    assert said.startswith(reason)
    assert count == 1
    assert report.examples[said] == ["a.jsonl:61"]


def test_a_list_or_an_object_is_no_language(tmp_path: Path) -> None:
    languages = ["en", ["en"], {"code": "en"}, None, "en"]
    rows = [{"text": f"text {number}", "lang": language} for number, language in enumerate(languages)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quality = {"language_field": "lang", "languages": ["en"]}
    source = str(tmp_path / "a.jsonl")
    report = write_corpus(
        Corpus(source=source, validation_fraction=0, test_fraction=0, quality=quality), tmp_path / "out"
    )
    assert list(read_documents(tmp_path / "out", "train")) == ["text 0", "text 4"]
    assert report.skipped == {"another language (quality.languages)": 3}


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "csv"])
def test_a_field_of_the_language(tmp_path: Path, kind: str) -> None:
    texts = [f"text {number}" for number in range(90)]
    languages = [("en", "de", None)[number % 3] for number in range(90)]
    table = pa.table({"lang": languages, "text": texts})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    elif kind == "csv":
        path.write_text(
            "lang,text\n" + "".join(f"{lang},{text}\n" for lang, text in zip(languages, texts, strict=True))
        )
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    quality = {"language_field": "lang", "languages": ["en", "fr"]}
    config = Corpus(source=str(path), validation_fraction=0, test_fraction=0, quality=quality)
    report = write_corpus(config, tmp_path / "out")
    assert list(read_documents(tmp_path / "out", "train")) == texts[::3]
    assert report.skipped == {"another language (quality.languages)": 60}
    wrong = config.model_copy(update={"quality": Quality(language_field="language", languages=("en",))})
    with pytest.raises(CorpusError, match=r"90 x no field 'language'"):
        write_corpus(wrong, tmp_path / "out")
    (tmp_path / "b.txt").write_text("text")
    with pytest.raises(CorpusError, match="plain text, which has no field"):
        write_corpus(config.model_copy(update={"source": str(tmp_path / "b.txt")}), tmp_path / "out")


def test_exact_copies_stay_once(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(80)]
    found, report = written(tmp_path / "a.jsonl", [*texts, *texts[:30]], tmp_path / "out", duplicates="exact")
    assert texts_in(found) == sorted(texts)
    assert report.skipped == {"exact copy of an earlier document": 30}
    assert report.repeated == {"validation": 0, "test": 0}
    assert report.documents == {split: len(found[split]) for split in SPLITS}
    assert report.bytes == {split: sum(map(len, found[split])) for split in SPLITS}
    plain, _ = written(tmp_path / "b.jsonl", texts, tmp_path / "plain")
    assert found == plain
    [example, *_] = report.examples["exact copy of an earlier document"]
    split, _, beginning = example.partition(": ")
    assert beginning in found[split]


def near_copies(seed: int) -> tuple[list[str], list[str]]:
    """Documents of 200 words, and copies of some of them with two words changed."""
    generator = random.Random(seed)
    texts = [words(generator, 200) for _ in range(120)]
    copies = []
    for text in texts[:40]:
        changed = list(text)
        for place in generator.sample(range(200), 2):
            changed[place] = "changed"
        copies.append(" ".join(changed))
    return [" ".join(text) for text in texts], copies


def test_near_duplicates_stay_once_and_held_out_text_stays(tmp_path: Path) -> None:
    pytest.importorskip("datasketch", reason="datasketch makes the signatures")
    texts, copies = near_copies(3)
    before, _ = written(tmp_path / "a.jsonl", [*texts, *copies], tmp_path / "before")
    found, report = written(tmp_path / "a.jsonl", [*texts, *copies], tmp_path / "out", duplicates="near")
    # Two of 200 words are in ten of 196 runs of five: a similarity of about 0.9.
    assert sum(report.skipped.values()) >= 38
    assert {*report.skipped} == {
        "near duplicate of an earlier document",
        "near duplicate of a document in another split",
    }
    assert len(texts_in(found)) == len(texts) + len(copies) - sum(report.skipped.values())
    pairs = dict(zip(copies, texts, strict=False))
    split_of = {text: split for split in SPLITS for text in before[split]}
    kept = set(texts_in(found))
    for copy, text in pairs.items():
        assert text in kept or copy in kept
        # Of a pair in training and held-out text the latter stays.
        for one, other in ((text, copy), (copy, text)):
            if split_of[one] == "train" and split_of[other] == "test":
                assert other in kept
    assert set(texts[40:]) <= kept


def test_signatures_estimate_similarity() -> None:
    pytest.importorskip("datasketch", reason="datasketch makes the signatures")
    texts, copies = near_copies(5)
    for text, copy in zip(texts[:20], copies, strict=False):
        mine, other = set(word_runs(text, 5).tolist()), set(word_runs(copy, 5).tolist())
        similarity = len(mine & other) / len(mine | other)
        estimate = (signature(text) == signature(copy)).mean()
        assert estimate == pytest.approx(similarity, abs=4 * (similarity * (1 - similarity) / PERMUTATIONS) ** 0.5)
    every = np.stack([signature(text) for text in [*texts, *copies, "short", "also short"]])
    likes = earlier_likes(every, 0.8)
    assert (likes[:120] == -1).all()
    assert (likes[120:160] == np.arange(40)).sum() >= 38
    assert likes[160:].tolist() == [-1, -1]


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_what_is_similar(similarity: float) -> None:
    bands = bands_for(similarity)
    assert 1 - (1 - similarity ** (PERMUTATIONS // bands)) ** bands >= 0.95
    assert PERMUTATIONS % bands == 0


def test_held_out_documents_that_stand_in_training_text_are_left_out(tmp_path: Path) -> None:
    generator = random.Random(1)
    texts = [" ".join(words(generator, 60)) for _ in range(200)]
    plain, _ = written(tmp_path / "a.jsonl", texts, tmp_path / "plain")
    quoted = [*plain["test"][:4], *plain["validation"][:3]]
    # A training document that quotes twenty words, in other letters; where it falls follows from its content.
    quoting = []
    for text in quoted:
        passage = " ".join(text.split()[20:40]).upper().replace(" ", ",  ")
        quoting += [f"{' '.join(words(generator, 30))} {passage} {number}" for number in range(4)]
    unquoted, _ = written(tmp_path / "b.jsonl", [*texts, *quoting], tmp_path / "unquoted")
    in_train = {text for text in quoted if sum(" ".join(text.split()[20:40]).upper().replace(" ", ",  ") in one
                                               for one in unquoted["train"])}  # fmt: skip
    assert len(in_train) >= 5
    found, report = written(tmp_path / "b.jsonl", [*texts, *quoting], tmp_path / "out", decontaminate_words=13)
    assert found["train"] == unquoted["train"]
    for split in ("test", "validation"):
        gone = set(unquoted[split]) - set(found[split])
        assert in_train & set(unquoted[split]) <= gone
        # What quotes a training passage is in training text as well.
        assert gone <= {*quoted, *quoting}
    [(reason, count)] = report.skipped.items()
    assert "shares a run of words" in reason
    assert count == sum(len(unquoted[split]) - len(found[split]) for split in SPLITS)
    again, _ = written(tmp_path / "b.jsonl", [*texts, *quoting], tmp_path / "longer", decontaminate_words=25)
    assert again == unquoted


def shuffled(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
    yield from map(work, random.Random(7).sample(parts, len(parts)))


def test_parts_and_their_order_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasketch", reason="datasketch makes the signatures")
    texts, copies = near_copies(9)
    quality = {"duplicates": "near", "decontaminate_words": 13}
    whole, expected = written(tmp_path / "a.jsonl", [*texts, *copies, *texts[:9]], tmp_path / "whole", **quality)
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 20_000)
    config = Corpus(source=str(tmp_path / "a.jsonl"), validation_fraction=0.2, test_fraction=0.2, quality=quality)
    for mapper in (None, shuffled):
        report = write_corpus(config, tmp_path / "parts", *([mapper] if mapper else []))
        assert replace(report, examples={}) == replace(expected, examples={})
        assert {split: list(read_documents(tmp_path / "parts", split)) for split in SPLITS} == whole
        assert (tmp_path / "parts" / "corpus.json").exists()


def test_nothing_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert "quality" not in identity_config(Corpus(source="markov"))
    assert "quality" not in Corpus().model_dump()
    asked = Corpus(source="markov", quality=Quality(duplicates="exact"))
    assert identity_config(asked)["quality"]["duplicates"] == "exact"
    assert Corpus.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"languages": ["en"]}, "language_field and languages go together"),
        ({"language_field": "lang"}, "language_field and languages go together"),
        ({"min_characters": 9, "max_characters": 8}, "no document is left"),
        ({"duplicates": "fuzzy"}, "'keep', 'exact' or 'near'"),
        ({"decontaminate_words": 2}, "greater than or equal to 5"),
    ],
)
def test_settings_that_cannot_be(quality: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Corpus(quality=quality)


def test_a_split_that_loses_everything_is_named(tmp_path: Path) -> None:
    texts = ["the same fifteen words stand here again and again and nothing else is ever said " + str(number)
             for number in range(40)]  # fmt: skip
    with pytest.raises(CorpusError, match=r"leaves no document in (test|validation)"):
        written(tmp_path / "a.jsonl", texts, tmp_path / "out", decontaminate_words=13)
