"""Batches cover the text, repeat themselves from a seed, and go on where they stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calm_bench.config import Tokens
from calm_bench.tokens import Batches, TokensError, TokensReport, TokenStream, different_chunks, windows

Write = Callable[[list[str], Tokens], tuple[Path, TokensReport]]


@pytest.fixture
def stream(write: Write) -> TokenStream:
    """1000 tokens over several shards, in which no two windows are equal."""
    text = "".join(f"{number:04d}" for number in range(250))[:999]
    return TokenStream.open(write([text], Tokens(shard_tokens=64))[0], "train")


def starts_of(stream: TokenStream, batch: torch.Tensor) -> list[int]:
    length = batch.shape[1]
    places = {tuple(stream[start : start + length].tolist()): start for start in range(len(stream) - length + 1)}
    return [places[tuple(row)] for row in batch.tolist()]


def test_an_epoch_visits_each_of_its_windows_once(stream: TokenStream) -> None:
    batches = Batches(stream, batch_size=3, sequence_length=16, seed=0)
    rows = [start for batch in islice(batches, 200) for start in starts_of(stream, batch)]
    offsets = []
    while len(rows) >= 62:
        offset = rows[0] % 16
        epoch = rows[: (1000 - offset) // 16]
        assert sorted(epoch) == list(range(offset, offset + 16 * len(epoch), 16))
        assert epoch != sorted(epoch)
        offsets.append(offset)
        rows = rows[len(epoch) :]
    assert len(offsets) == 9
    assert len(set(offsets)) > 3


def test_chunk_phases_vary_between_epochs(stream: TokenStream) -> None:
    batches = Batches(stream, batch_size=62, sequence_length=16, seed=1)
    phases = {start % 4 for batch in islice(batches, 40) for start in starts_of(stream, batch)}
    assert phases == {0, 1, 2, 3}


def test_some_rows_of_a_batch_are_those_of_the_whole_and_no_others_are_read(
    stream: TokenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, some = (Batches(stream, batch_size=5, sequence_length=16, seed=1) for _ in range(2))
    expected = [next(whole) for _ in range(20)]
    read = []
    gather = TokenStream.gather

    def noted(self: TokenStream, starts: Any, length: int) -> Any:
        read.append(len(starts))
        return gather(self, starts, length)

    monkeypatch.setattr(TokenStream, "gather", noted)
    for batch in expected:
        assert torch.equal(some.take(torch.tensor([3, 1])), batch[[3, 1]])
    assert read == [2] * 20
    assert some.state_dict() == whole.state_dict()


def test_shape_type_and_seed(stream: TokenStream) -> None:
    def first(seed: int, batch_size: int = 5) -> torch.Tensor:
        return torch.cat(list(islice(Batches(stream, batch_size, 32, seed), 20)))

    assert first(0).shape == (100, 32)
    assert first(0).dtype == torch.int64
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert torch.equal(first(0), first(0, batch_size=10)[:100])


@pytest.mark.parametrize("taken", [0, 1, 10, 21, 45])
def test_a_saved_state_continues_exactly(stream: TokenStream, taken: int) -> None:
    batches = Batches(stream, 3, 16, seed=7)
    for _ in range(taken):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    expected = torch.stack(list(islice(batches, 30)))
    resumed = Batches(stream, 3, 16, seed=7)
    next(resumed)
    resumed.load_state_dict(state)
    assert torch.equal(torch.stack(list(islice(resumed, 30))), expected)


def test_a_state_of_something_else_is_refused(stream: TokenStream) -> None:
    state = Batches(stream, 3, 16, seed=7).state_dict()
    with pytest.raises(TokensError, match="seed 7, this run has 8"):
        Batches(stream, 3, 16, seed=8).load_state_dict(state)
    with pytest.raises(TokensError, match="sequence_length 16, this run has 32"):
        Batches(stream, 3, 32, seed=7).load_state_dict(state)
    with pytest.raises(TokensError, match="stream"):
        Batches(stream, 3, 16, seed=7).load_state_dict({**state, "stream": "another"})


def test_a_text_shorter_than_a_batch_repeats_and_one_shorter_than_a_sequence_is_refused(stream: TokenStream) -> None:
    batch = next(Batches(stream, batch_size=7, sequence_length=400, seed=0))
    assert batch.shape == (7, 400)
    assert all(start <= 600 for start in starts_of(stream, batch))
    exact = next(Batches(stream, batch_size=2, sequence_length=1000, seed=0))
    assert torch.equal(exact[0], exact[1])
    with pytest.raises(TokensError, match=r"train split has 1000 tokens, fewer than one sequence of 1001"):
        Batches(stream, batch_size=1, sequence_length=1001, seed=0)


def test_windows_tile_the_stream(stream: TokenStream) -> None:
    tokens, starts = windows(stream, 48)
    assert starts.tolist() == list(range(0, 960, 48))
    assert tokens.flatten().tolist() == stream[:960].tolist()
    assert torch.equal(windows(stream, 48, 1000).tokens, tokens)


def test_fewer_windows_are_spread_over_the_stream(stream: TokenStream) -> None:
    tokens, starts = windows(stream, 48, 5)
    assert starts.tolist() == [0, 192, 384, 576, 768]
    assert tokens.tolist() == [stream[start : start + 48].tolist() for start in starts.tolist()]
    assert windows(stream, 48, 1).starts.tolist() == [0]
    with pytest.raises(TokensError, match="fewer than one window of 1001"):
        windows(stream, 1001)


def test_chunks_are_of_different_documents() -> None:
    """Every document ten times gives the chunks of one of each, so that errors over chunks are not too small."""

    def of(documents: list[list[int]]) -> TokenStream:
        tokens = np.concatenate([np.array(document) for document in documents])
        return TokenStream("test", 257, 256, "digest", (tokens,), (0, len(tokens)), np.cumsum([*map(len, documents)]))

    documents = [[*range(number, number + 7), 256] for number in range(20)]
    once = different_chunks(of(documents), 8, 4)
    assert once.tolist() == windows(of(documents), 4).tokens.tolist()
    ten = of([document for document in documents for _ in range(10)])
    assert different_chunks(ten, 8, 4).tolist() == once.tolist()
    assert ten.copied_documents().sum() == 180
    assert len(different_chunks(of([[1, 2, 256]] * 5), 4, 4)) == 3, "they are longer than the only document"
