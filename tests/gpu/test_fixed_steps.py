"""On a GPU the steps of a generation have one shape, and write what a CPU writes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from calm_bench.lm import ChunkLanguageModel
from calm_bench.lm.fixed_cache import FixedCache
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.reader import Reader
from calm_bench.sampling.recorded import AS_IT_IS, VARIABLE, Recorded, can_record
from calm_bench.seeding import generator
from tests.gpu.pretended_gpu import GPU, pretended_gpu
from tests.gpu.small_models import LANGUAGE_MODELS, VOCAB_SIZE, language_model

PROMPTS = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11, 12], [13, 14], [15, 16, 17, 18], [19, 20]]
NEW_TOKENS = 40


def written(kind: str, device: str) -> list[list[int]]:
    model = language_model(kind).eval().to(device)
    generators = [generator(index, device=device) for index in range(len(PROMPTS))]

    def is_long_enough(row: int, tokens: list[int]) -> bool:
        return len(tokens) >= 6 * (1 + row)

    end = VOCAB_SIZE - 1
    found = generate_batch(model, PROMPTS, NEW_TOKENS, generators, end, stop=is_long_enough)
    return [text.tokens for text in found]


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_gpu_writes_what_a_cpu_writes_in_steps_of_few_shapes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = written(kind, "cpu")
    assert len({len(tokens) for tokens in expected}) > 2, "texts end at different times"
    shapes: list[tuple[int, ...]] = []
    read = ChunkLanguageModel.read

    def noted(self: ChunkLanguageModel, tokens: Tensor, positions: Tensor, cache: Any, *rest: Any) -> Tensor:
        assert isinstance(cache, FixedCache)
        shapes.append(tuple(tokens.shape))
        return read(self, tokens, positions, cache, *rest)

    monkeypatch.setattr(ChunkLanguageModel, "read", noted)
    with pretended_gpu():
        assert written(kind, GPU) == expected
    assert len(shapes) >= 5
    assert len(set(shapes[1:])) <= len(PROMPTS).bit_length(), shapes


def test_rows_that_are_left_out_and_kept_are_read_as_on_a_cpu() -> None:
    """Also those that are left out later than others, before and after half of them are gone."""

    def read(device: str) -> list[Tensor]:
        model = language_model("energy").eval().to(device)
        reader = Reader(model, PROMPTS, more=4)
        chunks = torch.arange(12, device=device).view(6, 2)
        found = [reader.hidden]
        for kept in ([0, 1, 2, 4, 5], [0, 2, 3, 4], [1, 3], [1]):
            reader.keep(kept)
            reader.read(chunks[: len(kept)])
            found.append(reader.hidden)
        return [hidden.cpu() for hidden in found]

    with torch.no_grad():
        expected = read("cpu")
        with pretended_gpu():
            for own, wanted in zip(read(GPU), expected, strict=True):
                torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)


def test_a_cpu_records_nothing_and_a_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert can_record(torch.device("cuda"))
    assert not can_record(torch.device("cpu"))
    monkeypatch.setenv(VARIABLE, "0")
    assert not can_record(torch.device("cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="it can be recorded")
def test_what_cannot_be_recorded_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calm_bench.sampling.recorded.can_record", lambda device: True)
    step = Recorded(lambda values: values + 1)
    for _ in range(AS_IT_IS):
        assert step(torch.zeros(1)) == 1
    with pytest.raises(RuntimeError) as failed:
        step(torch.zeros(1))
    assert failed.value.__notes__ == ["CALM_BENCH_CUDA_GRAPHS=0 generates without CUDA graphs"]


def test_memory_of_a_generation_is_let_go_of_with_it() -> None:
    """Python looks for objects that hold each other when its own memory runs short, not a GPU's."""
    gc.collect()
    gc.disable()
    try:
        with pretended_gpu(), torch.no_grad():
            reader = Reader(language_model("energy").eval().to(GPU), PROMPTS[:4], more=4)
            reader.read(torch.zeros((4, 2), dtype=torch.long, device=GPU))
            reader.keep([0, 2])
            reader.read(torch.zeros((2, 2), dtype=torch.long, device=GPU))
            held = weakref.ref(reader._steps._cache)
            assert held() is not None
            del reader
            assert held() is None
    finally:
        gc.enable()


class Devices:
    """Which device is current, and what is recorded where, of a torch that has none."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.current, self.recorded_on = torch.device("cuda:0"), list[tuple[torch.device, torch.device]]()
        patch.setattr(torch.cuda, "device_of", self.on)
        patch.setattr(torch.cuda, "Stream", lambda device=None: device or self.current)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        patch.setattr(torch.cuda, "graph", self.graph)

    @contextmanager
    def on(self, tensor: Any) -> Iterator[None]:
        before, self.current = self.current, tensor.device
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: Any, stream: Any = None, **settings: Any) -> Iterator[None]:
        # torch's own stream is that of the device on which the process recorded first.
        self.recorded_on.append((self.current, stream or torch.device("cuda:0")))
        yield


def test_steps_are_recorded_on_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another than the current one would be computed once, and a playback would repeat their result."""
    devices = Devices(monkeypatch)
    monkeypatch.setattr("calm_bench.sampling.recorded.can_record", lambda device: True)
    for name in ("cuda:1", "cuda:0", "cuda:1"):
        values: Any = SimpleNamespace(device=torch.device(name), copy_=lambda other: None)
        values.clone = lambda values=values: values
        step = Recorded(lambda given: given)
        for _ in range(AS_IT_IS + 2):
            assert step(values) is values
    asked = [torch.device(name) for name in ("cuda:1", "cuda:0", "cuda:1")]
    assert devices.recorded_on == list(zip(asked, asked, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_recorded_steps_write_what_steps_as_they_are_write(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = written(kind, "cuda")
    monkeypatch.setenv(VARIABLE, "0")
    assert written(kind, "cuda") == recorded
