"""Texts that a trained model writes, as a stage of its own."""

from __future__ import annotations

import numpy as np

from calm_bench.tokens import TokenStream
from pipelines.stages.sample_texts import as_markdown, prompts_of


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
