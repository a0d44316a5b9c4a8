"""Texts that a trained model writes, as a stage of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import ConfigurationError, apply_settings
from calm_bench.tokens import TokenStream
from pipelines.execution.local_executor import LocalExecutor
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.kinds.generation_speed import WritingSpeed, chosen_speed, in_words
from pipelines.study.kinds.samples import as_markdown, continuations_of, prompts_of, samples_summary
from pipelines.study.kinds.writing_statistics import in_words as in_words_beside_held_out
from pipelines.study.kinds.writing_statistics import measure_texts, writing_metrics
from pipelines.study.stage import Stage


def stream(lengths: list[int]) -> TokenStream:
    ends = np.cumsum(lengths)
    tokens = np.concatenate([np.full(length, index) for index, length in enumerate(lengths)])
    return TokenStream("test", 300, 256, "digest", (tokens,), (0, len(tokens)), ends)


def test_prompts_begin_documents_that_go_on() -> None:
    prompts = prompts_of(stream([10, 3, 12, 5, 20, 11]), 2, 4)
    assert prompts == [[0] * 4, [4] * 4]


def test_a_document_that_ends_with_the_prompt_is_none_to_continue() -> None:
    assert prompts_of(stream([5, 5]), 2, 4) == []
    assert prompts_of(stream([6, 5]), 2, 4) == [[0] * 4]


def test_no_prompt_is_of_a_copy_of_another_document() -> None:
    """After copies the model would be asked the same, and held-out text would look as if it repeated itself."""
    documents = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]]

    def copied(times: int) -> TokenStream:
        rows = [row for row in documents for _ in range(times)]
        tokens = np.array([token for row in rows for token in row])
        return TokenStream("test", 300, 256, "digest", (tokens,), (0, len(tokens)), np.cumsum(list(map(len, rows))))

    for count in (3, 4, 8, 30):
        prompts, rest = prompts_of(copied(10), count, 3), continuations_of(copied(10), count, 3, 9)
        found = [prompt + more for prompt, more in zip(prompts, rest, strict=True)]
        assert len(found) == min(count, 4)
        assert sorted(found) == sorted(documents if count > 3 else found)
        assert len({tuple(text) for text in found}) == len(found)
    assert prompts_of(copied(1), 4, 3) == [row[:3] for row in documents], "equal beginnings are no copies"


def test_continuations_are_what_the_documents_say_after_the_prompts() -> None:
    assert continuations_of(stream([10, 3, 12, 5, 20, 11]), 2, 4, 7) == [[0] * 6, [4] * 7]


def test_statistics_stand_beside_those_of_as_much_held_out_text() -> None:
    circle, document = [1, 2] * 40, list(range(60))
    found = measure_texts([circle, circle, []], [document, document, document], 0.5)
    assert found is not None
    assert (found["num_texts"], found["num_tokens"]) == (2, 120)
    assert found["model"]["repeated_4"]["value"] == pytest.approx(1 - 2 / 57)
    assert found["held_out"]["repeated_4"]["value"] == 0.0
    assert found["held_out"]["distinct_2"]["value"] == pytest.approx(0.5), "the two documents are one"
    words = in_words_beside_held_out(found)
    assert words.startswith("Temperature 0.5, 2 texts, 120 tokens: distinct 2-grams 1.69 % (held-out text 50 %)")
    assert {point.name for point in writing_metrics({"statistics": [found]})} >= {
        "text_T0.5/repeated_4_model",
        "text_T0.5/repeated_4_held_out",
    }
    assert measure_texts([[], []], [document, document], 1.0) is None


def test_a_judge_is_named_by_its_content(tmp_path: Path) -> None:
    def stage(folder: Path) -> Stage:
        found = stages_for(apply_settings(Experiment(), {"samples.judge": str(folder)}))["samples"]
        assert found.settings == {"judge": str(folder)}
        return found

    for name in ("one", "moved"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    one = stage(tmp_path / "one")
    assert stage(tmp_path / "moved").identity == one.identity
    (tmp_path / "moved" / "config.json").write_text("{ }")
    assert stage(tmp_path / "moved").identity != one.identity
    with pytest.raises(ConfigurationError, match=r"samples\.judge: there is no folder"):
        stage(tmp_path / "none")


def test_more_prompts_than_documents() -> None:
    assert len(prompts_of(stream([10, 10, 10]), 8, 4)) == 3


def test_a_text_cannot_leave_its_block() -> None:
    text = {
        "temperature": 0.5,
        "prompt": "```\n# not a heading",
        "text": "````",
        "num_tokens": 4,
        "ended": False,
        "head_evaluations": 1200,
    }
    written = as_markdown([text])
    fence = "`" * 5
    assert written.count(fence) == 2
    assert f"{fence}text\n```\n# not a heading⟦````⟧\n{fence}" in written
    assert "1,200 head evaluations" in written


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told(num_texts: int, chunk_size: int, steps: list[tuple[float, dict[int, int]]]) -> WritingSpeed:
    """A speed that has heard ``steps``: when each ended, and how many tokens each text gained in it."""
    clock = Clock()
    speed = WritingSpeed(num_texts, chunk_size, clock)
    for now, gained in steps:
        # The step's time is that of its last piece.
        for index, count in gained.items():
            clock.now = now - 0.25 * (index < max(gained))
            speed(index, [7] * count)
    return speed


def test_a_speed_is_that_of_whole_chunks_after_the_prompts_were_read() -> None:
    speed = told(2, 3, [(10.0, {0: 2, 1: 2}), (11.0, {0: 3, 1: 3}), (11.5, {0: 3, 1: 3}), (12.0, {0: 3, 1: 3})])
    assert speed.result() == {"batch_size": 2, "tokens": 12, "seconds": 1.0, "tokens_per_second": 12.0}


def test_a_batch_counts_until_its_first_text_ends() -> None:
    begun = [(float(now), {0: 3, 1: 3}) for now in range(4)]
    alone = [(float(now), {1: 3}) for now in range(4, 9)]
    ended = told(2, 3, [*begun, *alone])
    # The end is told by an empty piece, or by a piece that is shorter.
    ended(0, [])
    assert ended.result() == told(2, 3, begun).result()
    assert told(2, 3, [*begun, (4.0, {0: 1, 1: 3}), (5.0, {1: 3})]).result() == ended.result()
    assert told(1, 1, [(float(now), {0: 1}) for now in range(6)]).result() == {
        "batch_size": 1,
        "tokens": 4,
        "seconds": 4.0,
        "tokens_per_second": 1.0,
    }


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [(1.0, {0: 3, 1: 3})],
        [(1.0, {0: 3, 1: 3}), (2.0, {0: 3, 1: 3})],
        # One text's prompt ended inside a chunk and was aligned anew, and the other one ended at once.
        [(1.0, {1: 3}), (2.0, {0: 3}), (3.0, {0: 3}), (4.0, {0: 3})],
        # A clock that did not move tells nothing.
        [(1.0, {0: 3, 1: 3}), (2.0, {0: 3, 1: 3}), (2.0, {0: 3, 1: 3})],
    ],
)
def test_too_little_was_written_to_tell_a_speed(steps: list[tuple[float, dict[int, int]]]) -> None:
    speed = told(2, 3, steps)
    assert speed.result() is None


def test_the_speed_of_a_row_is_in_the_mode_of_its_flops() -> None:
    speeds = [
        {"decode_mode": mode, "batch_size": batch, "device": "cpu: x86_64", "tokens_per_second": 1.0}
        for mode, batch in (("sample T=0.5 (batch of 200)", 1), ("sample T=1", 2))
    ]
    chosen = chosen_speed(speeds, "sample T=1")
    assert chosen is not None
    assert in_words(chosen) == "sample T=1, 2 texts at once, cpu: x86_64"
    other = chosen_speed(speeds, "sample T=0.3")
    assert other is not None
    assert in_words(other) == "sample T=0.5 (batch of 200), 1 text at a time, cpu: x86_64"
    assert chosen_speed([], "sample T=1") is None


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"model.kind": "token"}, {"model.chunk_size": 3}], ids=["token", "K=3"])
def test_the_stage_measures_how_fast_it_writes(tmp_path: Path, settings: dict[str, object]) -> None:
    size = {"hidden_size": 16, "intermediate_size": 16}
    training = {"num_steps": 2, "batch_size": 2, "sequence_length": 24, "warmup_steps": 1, "validation_batches": 1}
    experiment = Experiment.model_validate(
        {
            "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 200}},
            "autoencoder": {"latent_size": 8, **size, "training": training},
            "model": {**size, "num_layers": 1, "num_attention_heads": 2, "training": training},
            "evaluation": {"context_length": 24, "first_position": 12, "position_stride": 12},
            "samples": {"num_prompts": 2, "num_tokens": 24, "candidates": 4, "temperatures": [1.0, 0.5]},
        }
    )
    graph = stages_for(apply_settings(experiment, settings))
    executor = LocalExecutor(Store(tmp_path), "cpu")
    try:
        for stage in graph.stages:
            if stage.kind != "evaluation":
                result = executor.submit(stage).result()
        longer = stages_for(apply_settings(experiment, settings | {"samples.prompt_tokens": 5000}))["samples"]
        none = executor.submit(longer).result()
    finally:
        executor.close()
    texts, speeds = result["texts"], result["speed"]
    assert len(texts) == 4
    assert [speed["decode_mode"] for speed in speeds] == ["sample T=1", "sample T=0.5 (batch of 4)"]
    for speed in speeds:
        assert speed["batch_size"] == 2
        assert 0 < speed["tokens"] < 2 * 24
        assert speed["tokens_per_second"] == speed["tokens"] / speed["seconds"] > 0
        assert speed["device"].startswith("cpu")
    assert "remarks" not in result
    assert none["texts"] == []
    assert samples_summary(none) == (
        "0 texts; 0 of 2 prompts: as many different documents of the test split have more than 5000 tokens "
        "(samples.prompt_tokens) and an end"
    )
