"""What errors are over is said wherever they stand, and a warning where that is less than people take it for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipelines.report.captions import caption
from pipelines.report.protocol_words import protocol_words
from pipelines.results.entry import Entry
from pipelines.results.error_unit import copies_among, errors_over, few_documents
from pipelines.results.leaderboard import Leaderboard
from pipelines.study.kinds.corpus import corpus_summary
from pipelines.study.kinds.evaluation import ROW_FIELDS, evaluation_row
from pipelines.study.row import FinishedStage
from pipelines.study.stage import Stage


def test_documents_are_the_usual_unit_and_need_no_warning(ablation: list[Entry]) -> None:
    assert errors_over(ablation) == "documents"
    assert few_documents(ablation) == ""
    assert "standard error over documents: " in caption(Leaderboard(ablation).groups[0])


def test_windows_are_named_with_what_to_do(make_entry: Callable[..., Entry]) -> None:
    rows = [make_entry(error_unit="window", num_documents=4)]
    assert errors_over(rows) == "windows"
    assert "4 documents are fewer than the 10" in few_documents(rows)
    for text in (caption(Leaderboard(rows).groups[0]), " ".join(protocol_words({}, rows)), " ".join(_words(rows))):
        assert "over documents" not in text
    assert "over windows: " in caption(Leaderboard(rows).groups[0])
    assert any("corpus.test_fraction" in sentence for sentence in _words(rows))


def test_seeds_are_a_unit_of_their_own(make_entry: Callable[..., Entry]) -> None:
    rows = [make_entry(seeds=(0, 1), seed_error=0.1), make_entry(trial=1, error_unit="window")]
    assert errors_over(rows) == "documents or windows and seeds"


def test_boards_of_before_are_over_documents(make_entry: Callable[..., Entry]) -> None:
    fields = make_entry().model_dump(mode="json")
    del fields["error_unit"]
    assert Entry.model_validate(fields).error_unit == "document"


def test_copies_of_documents_are_said_on_the_leaderboard_and_in_the_report(make_entry: Callable[..., Entry]) -> None:
    rows = [make_entry(copied_documents=12), make_entry(trial=1)]
    told = "12 documents of the scored split are exact copies of others: errors take copies for one document."
    assert copies_among(rows) == told
    assert told in caption(Leaderboard(rows).groups[0])
    assert told in _words(rows)
    assert copies_among([make_entry(copied_documents=1)]).startswith("One document of the scored split is an exact")
    assert copies_among([make_entry()]) == ""
    assert Leaderboard.from_json(Leaderboard(rows).to_json()).groups[0].entries[0].copied_documents == 12


@pytest.mark.parametrize(("split", "copied"), [("validation", 2), ("test", 5)])
def test_copies_are_those_of_the_split_that_is_scored(split: str, copied: int) -> None:
    stage = Stage("evaluation", 1, {"protocol": {"split": split}}, {}, {}, "")
    scored = dict.fromkeys((*ROW_FIELDS, "estimator"), 0)
    corpus = {"repeated": {"validation": 2, "test": 5}}
    finished = FinishedStage(stage, scored, None, "", {"corpus": corpus})
    assert evaluation_row(finished).fields["copied_documents"] == copied
    # A corpus of before copies were counted.
    assert evaluation_row(replace(finished, trial={"corpus": {}})).fields["copied_documents"] == 0


def test_a_corpus_says_its_copies() -> None:
    result = {"documents": {"train": 9, "test": 7}, "bytes": {"train": 2e6}, "repeated": {"validation": 0, "test": 5}}
    assert corpus_summary(result) == "16 documents, 2 MB; exact copies of other documents: 5 of test"


def _words(rows: list[Entry]) -> list[str]:
    protocol = {"split": "test", "max_windows": None, "context_length": 256, "position_stride": 8, "first_position": 32}
    return protocol_words(protocol, rows)
