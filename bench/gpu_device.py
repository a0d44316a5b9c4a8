"""What :mod:`bench.gpu` runs on: a GPU with models of the paper's sizes, or a CPU with tiny ones, to rehearse."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from calm_bench.config import Experiment
from calm_bench.lm import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.regions import backend_for
from calm_bench.training.autoencoder import untrained
from tests.gpu import paper_sizes

Row = dict[str, Any]
"""One line of a table, by column."""
Model = TypeVar("Model", bound=nn.Module)
Case = tuple[str, Callable[[], Row]]
"""What is measured or checked, and how."""
WARM_UP, STEPS = 2, 5
REHEARSED_STEPS = 16
"""Chunks of a sequence on a CPU."""


@dataclass(frozen=True)
class Device:
    """The device, and how large what runs on it is."""

    name: str

    @property
    def is_gpu(self) -> bool:
        return self.name.startswith("cuda")

    @property
    def model(self) -> str:
        return torch.cuda.get_device_name() if self.is_gpu else "CPU"

    @property
    def vocab_size(self) -> int:
        return paper_sizes.VOCAB_SIZE if self.is_gpu else 300

    @property
    def backend(self) -> str:
        """What regions are compiled with; a CPU only traces them, which takes seconds.

        Raises:
            RuntimeError: this machine compiles nothing, so what is called compiled would not be.
        """
        if not self.is_gpu:
            return "aot_eager"
        if (backend := backend_for(self.name)) is None:
            raise RuntimeError("nothing is compiled here: Triton or a C compiler is missing, or CALM_BENCH_COMPILE=0")
        return backend

    def rows(self, count: int) -> int:
        """Sequences at once."""
        return count if self.is_gpu else 2

    def experiment(self, preset: str, kind: str) -> Experiment:
        if self.is_gpu:
            return paper_sizes.experiment(preset, kind)
        described = paper_sizes.experiment("tiny", kind)
        model, autoencoder = described.model, described.autoencoder
        length = {"sequence_length": REHEARSED_STEPS * model.chunk_size}
        return described.model_copy(
            update={
                "model": model.model_copy(update={"training": model.training.model_copy(update=length)}),
                "autoencoder": autoencoder.model_copy(
                    update={"training": autoencoder.training.model_copy(update=length)}
                ),
            }
        )

    def language_model(self, preset: str, kind: str, document_end: int | None = None) -> ChunkLanguageModel:
        """A new one, whose attention stays inside documents where ``document_end`` ends them."""
        described = self.experiment(preset, kind)
        config = described.model.model_copy(update={"document_masking": document_end is not None})

        def make() -> ChunkLanguageModel:
            inner = untrained(described, self.vocab_size) if config.needs_autoencoder else None
            return build_language_model(config, self.vocab_size, inner, 0, document_end)

        return self.made(make)

    def made(self, make: Callable[[], Model]) -> Model:
        """What ``make`` makes, with its weights drawn on the device, which is faster by seconds."""
        try:
            with torch.device(self.name):
                model = make()
        except (RuntimeError, TypeError):
            model = make()
        model.to(self.name)
        return model

    def tokens(self, rows: int, length: int) -> Tensor:
        """Random ids on the CPU, as batches are: [rows, length]."""
        return torch.randint(self.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))

    def generator(self, seed: int = 0) -> torch.Generator:
        return torch.Generator(self.name).manual_seed(seed)

    def autocast(self, is_bf16: bool) -> AbstractContextManager[object]:
        """As a training in bf16 computes, or in fp32."""
        return torch.autocast(torch.device(self.name).type, dtype=torch.bfloat16, enabled=is_bf16)

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def clear_peak(self) -> None:
        self.synchronize()
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """The most that tensors took since :meth:`clear_peak`; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.is_gpu else None

    def seconds(self, work: Callable[[], object], repeats: int = STEPS) -> tuple[float, float]:
        """Of ``work`` until the device is done, and until it has been launched: medians, after a warm-up."""
        for _ in range(WARM_UP):
            work()
        done, launched = [], []
        for _ in range(repeats):
            self.synchronize()
            begun = time.perf_counter()
            work()
            launched.append(time.perf_counter() - begun)
            self.synchronize()
            done.append(time.perf_counter() - begun)
        return median(done), median(launched)

    def waits(self, work: Callable[[], object]) -> int | None:
        """How often ``work`` waits for the device, as torch counts it; None on a CPU."""
        if not self.is_gpu:
            work()
            return None
        self.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in seen)


def near(distances: Iterable[float | None], limit: float) -> bool:
    """Whether all are below ``limit``; NaN is not, whatever stands beside it, and neither is nothing at all."""
    numbers = [each for each in distances if each is not None]
    return bool(numbers) and all(each < limit for each in numbers)


def apart(found: Tensor, expected: Tensor) -> float:
    """The distance of two tensors in units of the second one's norm; NaN where one of them has any."""
    one, other = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((one - other).norm() / other.norm().clamp_min(1e-30))
