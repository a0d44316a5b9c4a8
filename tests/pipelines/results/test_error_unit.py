"""What errors are over is said wherever they stand, and a warning where that is less than people take it for."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.report.protocol_words import protocol_words
from pipelines.report.tables import caption
from pipelines.results.entry import Entry
from pipelines.results.error_unit import errors_over, few_documents
from pipelines.results.leaderboard import Leaderboard


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


def _words(rows: list[Entry]) -> list[str]:
    protocol = {"split": "test", "max_windows": None, "context_length": 256, "position_stride": 8, "first_position": 32}
    return protocol_words(protocol, rows)
