"""How far a stage of text is, and where it stops; what is enough text for other workers to be asked."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus, Experiment
from pipelines.execution.follow import Follower
from pipelines.monitor.state import StudyState
from pipelines.monitor.words import tenth
from pipelines.study.graph import stages_for
from pipelines.study.kinds.corpus import corpus_in_parts
from pipelines.study.kinds.text_parts import MUCH_TEXT, Text, watched_parts
from pipelines.study.kinds.tokens import tokens_in_parts
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext

TOKENS = Stage("tokens", 1, {}, label="tokens bpe")


def text_of(found: Any) -> Text | None:
    return Text(*found) if found else None


def test_parts_are_told_to_whoever_watches(tmp_path: Path) -> None:
    mapper = watched_parts(StageContext(), tmp_path, text_of)
    found = [(2_000_000, 500_000)] * 4
    assert list(mapper(lambda part: part, found)) == found
    state = StudyState()
    for progress in Follower(TOKENS, tmp_path, tmp_path / "nowhere").news():
        state.note(progress)
    seen = state.of(TOKENS)
    assert (seen.step, seen.total_steps, seen.remaining_s) == (4, 4, 0.0)
    assert seen.mb_per_second == pytest.approx(4 * seen.tokens_per_second / 1e6)
    assert f"tokens bpe: part 4 of 4, {seen.mb_per_second:.3g} MB/s, " in tenth(seen)
    assert "step" not in tenth(seen)


def test_other_work_and_a_single_part_write_nothing(tmp_path: Path) -> None:
    mapper = watched_parts(StageContext(), tmp_path, text_of)
    assert list(mapper(lambda part: part, [(5, 2)])) == [(5, 2)]
    assert list(mapper(lambda part: part, [None, None])) == [None, None]
    assert not list(tmp_path.iterdir())


def test_a_stage_that_is_to_stop_begins_no_further_part(tmp_path: Path) -> None:
    made: list[int] = []

    def work(part: int) -> tuple[int]:
        made.append(part)
        return (part,)

    mapper = watched_parts(StageContext(stop=lambda: len(made) == 2), tmp_path, text_of)
    with pytest.raises(Interrupted, match="after 2 of 9 parts, which are kept"):
        list(mapper(work, range(9)))
    assert made == [0, 1]
    # Another attempt tells its own parts, and not those of the one before too.
    list(watched_parts(StageContext(), tmp_path, text_of)(work, range(3)))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_stop_is_heard_while_a_part_is_made(tmp_path: Path) -> None:
    """A library may be busy for minutes, as BPE is that learns from gigabytes."""
    told, ended, made = threading.Event(), threading.Event(), list[int]()

    def work(part: int) -> tuple[int]:
        if part == 1:
            told.set()
            ended.wait(300)
            made.append(part)
        return (part,)

    mapper = watched_parts(StageContext(stop=told.is_set), tmp_path, text_of)
    with pytest.raises(Interrupted, match="after 1 of 3 parts, which are kept"):
        list(mapper(work, range(3)))
    assert made == [], "it is under way"
    ended.set()


def test_an_error_of_a_part_is_the_stages(tmp_path: Path) -> None:
    def work(part: int) -> tuple[int]:
        raise TimeoutError("the text is away")

    mapper = watched_parts(StageContext(), tmp_path, text_of)
    with pytest.raises(TimeoutError, match="the text is away"):
        list(mapper(work, [0]))
    assert list(mapper(lambda part: (part,), [])) == []


def test_little_text_is_one_process_work(tmp_path: Path) -> None:
    def in_parts(corpus: Corpus) -> bool:
        return corpus_in_parts(stages_for(Experiment(corpus=corpus), lambda corpus: {})["corpus"], {})

    for size in (MUCH_TEXT, MUCH_TEXT + 1):
        with (tmp_path / "text.txt").open("wb") as file:
            file.truncate(size)
        assert in_parts(Corpus(source=str(tmp_path / "text.txt"))) == (size > MUCH_TEXT)
        results = {"corpus": {"bytes": {"train": size - 10, "test": 10}}}
        assert tokens_in_parts(TOKENS, results) == (size > MUCH_TEXT)
    assert not in_parts(Corpus())
    assert not in_parts(Corpus(source=str(tmp_path / "gone.txt")))
