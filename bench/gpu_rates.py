"""How fast a GPU trains, validates, scores, writes and saves, and what it takes: the rates of :mod:`bench.gpu`.

MFU is the FLOPs of :mod:`calm_bench.flops` a second over the GPU's peak for dense bf16 products by its data sheet.
Planned memory is that of ``calm-bench plan`` without what the process takes besides its tensors.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bench.gpu_device import STEPS, Case, Device, Row
from bench.same_batch import SameBatch
from calm_bench.devices import available_memory, set_tf32
from calm_bench.flops import autoencoder_training_flops, training_flops
from calm_bench.lm.exact import ExactModel
from calm_bench.memory import evaluation_memory
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.recorded import VARIABLE
from calm_bench.training.autoencoder import training_loss, untrained, validation_scores
from calm_bench.training.checkpoint import Checkpoints, Counters
from calm_bench.training.loop import Loop
from calm_bench.training.task import TrainingTask
from calm_bench.worker_memory import fitting_rows
from evals.estimators import Estimator, score_windows
from evals.samplers import ModelSampler
from tests.gpu.paper_sizes import planned

PEAKS = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 FLOPs a second."""
TRAININGS = [("paper-m", "energy", 16), ("paper-m", "token", 32), ("paper-m", "autoencoder", 8)]
"""Presets, kinds, and sequences at once, which are told as they are and compiled."""
MORE = [
    ("paper-m", "patch", 16),
    ("paper-m", "flow", 16),
    ("paper-m", "diffusion", 16),
    ("paper-m", "multi_token", 16),
    ("paper-m", "block_diffusion", 16),
]
"""Those of which what is compiled is told at the end, while there is time."""
WINDOWS, SAMPLES, STRIDE = 16, 8, 8
PROMPT, WRITTEN = 64, 128
"""Tokens."""


def machine(device: Device, peak: float | None) -> list[Case]:
    """What it is, and the ceilings that products and copies reach on it."""
    size = 8192 if device.is_gpu else 256

    def products(dtype: torch.dtype, tf32: bool = False) -> Row:
        set_tf32(device.name, tf32)
        matrix = torch.randn(size, size, device=device.name).to(dtype)
        seconds, _ = device.seconds(lambda: matrix @ matrix)
        set_tf32(device.name, False)
        return {"TFLOP/s": 2 * size**3 / seconds / 1e12}

    def copies() -> Row:
        numbers = torch.empty(size * size, device=device.name)
        seconds, _ = device.seconds(numbers.clone)
        return {"TB/s": 2 * numbers.numel() * 4 / seconds / 1e12}

    def described() -> Row:
        found: Row = {"torch": torch.__version__, "CUDA": torch.version.cuda or "none"}
        found["Triton"] = importlib.util.find_spec("triton") is not None
        found["C compiler"] = any(map(shutil.which, ("cc", "gcc", "clang")))
        if device.is_gpu:
            properties = torch.cuda.get_device_properties(device.name)
            found |= {"GB": properties.total_memory / 1e9, "multiprocessors": properties.multi_processor_count}
        return found

    return [
        (device.model, described),
        ("products in bf16", partial(products, torch.bfloat16)),
        ("products in TF32", partial(products, torch.float32, True)),
        ("products in fp32", partial(products, torch.float32)),
        ("copies", copies),
    ]


def training(device: Device, preset: str, kind: str, rows: int, folder: Path, compiled: bool) -> tuple[Loop, float]:
    """A training of ``rows`` sequences a step, as :mod:`calm_bench.training` runs it; and its FLOPs a token."""
    described = device.experiment(preset, kind)
    config = described.autoencoder.training if kind == "autoencoder" else described.model.training
    config = config.model_copy(
        update={
            "batch_size": rows,
            "gradient_accumulation": 1,
            "num_steps": 10**9,
            "num_flops": None,
            "log_every": 10**9,
        }
    )
    model: Any
    if kind == "autoencoder":
        model = device.made(lambda: untrained(described, device.vocab_size))
        loss, scores = training_loss(model), validation_scores(model)
        flops = autoencoder_training_flops(described.autoencoder, model.chunk_size, device.vocab_size).total
    else:
        model = device.language_model(preset, kind)
        loss = scores = model.loss
        steps = config.sequence_length // described.model.chunk_size
        sizes = described.autoencoder if described.model.needs_autoencoder else None
        flops = training_flops(described.model, sizes, device.vocab_size, steps).total
    tokens = device.tokens(rows, config.sequence_length)
    task = TrainingTask(model, loss, scores, tokens, flops)
    loop = Loop(task, SameBatch(tokens), config, folder, 0, device.name, lambda: False)
    loop.backend = device.backend if compiled else None
    return loop, flops


def steps(device: Device, peak: float | None) -> list[Case]:
    """Steps of the optimizer, as they are and compiled."""
    return [
        (f"{preset} {kind}{', compiled' if compiled else ''}", partial(step, device, peak, *each, compiled))
        for each in TRAININGS
        for preset, kind, _ in (each,)
        for compiled in (False, True)
    ]


def more_steps(device: Device, peak: float | None) -> list[Case]:
    """Steps of other trainings, compiled."""
    return [(f"{each[0]} {each[1]}, compiled", partial(step, device, peak, *each, True)) for each in MORE]


def step(device: Device, peak: float | None, preset: str, kind: str, rows: int, compiled: bool) -> Row:
    """Time, share of the peak, memory against the plan, and waits."""
    if peak is None and device.is_gpu:
        peak = next((flops for part, flops in PEAKS.items() if part in device.model), None)

    rows = device.rows(rows)
    with TemporaryDirectory() as folder:
        loop, flops = training(device, preset, kind, rows, Path(folder), compiled)
        begun = time.perf_counter()
        loop.train_step()
        device.synchronize()
        first = time.perf_counter() - begun
        device.clear_peak()
        seconds, launched = device.seconds(loop.train_step, STEPS)
        speed = loop.tokens_per_step / seconds
        return {
            "sequences": rows,
            "first step, s": first,
            "ms": 1e3 * seconds,
            "launched in, ms": 1e3 * launched,
            "tokens/s": round(speed),
            "MFU, %": None if peak is None else 100 * speed * flops / peak,
            "peak, GB": device.peak_gb(),
            "planned, GB": planned_gb(device, preset, kind, rows),
            "waits": device.waits(loop.train_step),
        }


def planned_gb(device: Device, preset: str, kind: str, rows: int) -> float | None:
    if not device.is_gpu:
        return None
    parts = planned(device.experiment(preset, kind), kind, rows).parts.parts
    return (sum(parts.values()) - parts["process"]) / 1e9


def validation(device: Device, peak: float | None) -> list[Case]:
    """Memory of a validation beside that of the step before it, and what ``execution.micro_batch=auto`` fills."""

    def both(preset: str, kind: str, rows: int) -> Row:
        rows = device.rows(rows)
        with TemporaryDirectory() as folder:
            loop, _ = training(device, preset, kind, rows, Path(folder), compiled=False)
            device.clear_peak()
            loop.train_step()
            loop.train_step()
            step = device.peak_gb()
            device.clear_peak()
            begun = time.perf_counter()
            loop.scores()
            device.synchronize()
            seconds, scored = time.perf_counter() - begun, device.peak_gb()
        holds = None if step is None or scored is None else {"holds": scored <= step}
        return {
            "sequences": rows,
            "step, GB": step,
            "validation, GB": scored,
            "validation, s": seconds,
            **(holds or {}),
        }

    def fitting(preset: str, kind: str) -> Row:
        available = available_memory(device.name)
        described = device.experiment(preset, kind)
        rows = fitting_rows("auto", 16, lambda n: planned(described, kind, n).total, available)
        rows = rows if device.is_gpu else 2
        with TemporaryDirectory() as folder:
            loop, _ = training(device, preset, kind, rows, Path(folder), compiled=False)
            device.clear_peak()
            loop.train_step()
            loop.train_step()
        return {"sequences": rows, "step, GB": device.peak_gb(), "available, GB": (available or 0.0) / 1e9}

    cases: list[Case] = [(f"{preset} {kind}", partial(both, preset, kind, rows)) for preset, kind, rows in TRAININGS]
    return [*cases, ("micro_batch=auto, paper-xl energy", partial(fitting, "paper-xl", "energy"))]


def scoring(device: Device, peak: float | None) -> list[Case]:
    """A batch of windows scored, by number format."""
    length = 2048 if device.is_gpu else 64

    def score(kind: str, tf32: bool) -> Row:
        model = device.language_model("paper-m", kind).eval()
        sampler = ModelSampler(model)
        windows = device.tokens(WINDOWS, length).numpy().astype(np.int64)
        positions = list(range(length // 8, length - 8, STRIDE))
        estimator: Estimator = "exact" if isinstance(model, ExactModel) else "all-pairs"
        seeds = list(range(WINDOWS))

        def work() -> object:
            return score_windows(sampler, windows, positions, SAMPLES, (1, 2, 3, 4), seeds, estimator)

        set_tf32(device.name, tf32)
        try:
            device.clear_peak()
            seconds, _ = device.seconds(work, 3)
            waits = device.waits(work)
        finally:
            set_tf32(device.name, False)
        places = WINDOWS * len(positions)
        described = device.experiment("paper-m", kind)
        rules = described.evaluation.model_copy(update={"context_length": length, "num_samples": SAMPLES})
        autoencoder = described.autoencoder if described.model.needs_autoencoder else None
        memory = evaluation_memory(described.model, autoencoder, device.vocab_size, rules, "cuda").parts.parts
        return {
            "ms": 1e3 * seconds,
            "positions/s": round(places / seconds),
            "peak, GB": device.peak_gb(),
            "planned, GB": (sum(memory.values()) - memory["process"]) / 1e9 if device.is_gpu else None,
            "waits": waits,
        }

    kinds = ["energy", "token", "patch", "diffusion"]
    return [
        (f"paper-m {kind}, {WINDOWS} windows, {'TF32' if tf32 else 'fp32'}", partial(score, kind, tf32))
        for kind in kinds
        for tf32 in ((False, True) if kind in kinds[:2] else (True,))
    ]


def generation(device: Device, peak: float | None) -> list[Case]:
    """Texts written at T = 1, with steps played back as CUDA graphs and as they are."""
    number = WRITTEN if device.is_gpu else 16

    def write(kind: str, rows: int, recorded: bool) -> Row:
        set_tf32(device.name, True)
        model = device.language_model("paper-m", kind).eval()
        prompts = [[1] * PROMPT] * rows
        length = [0]

        def work() -> None:
            generators = [device.generator(index) for index in range(rows)]
            # An end of the text is as likely as any other token.
            written = generate_batch(model, prompts, number, generators, device.vocab_size - 1)
            length[0] = sum(len(text.tokens) for text in written)

        with patch.dict(os.environ, {VARIABLE: "1" if recorded else "0"}):
            device.clear_peak()
            seconds, _ = device.seconds(work, 2)
            waits = device.waits(work)
        steps = number // model.chunk_size
        per_step = None if waits is None else waits / steps
        return {"tokens/s": round(length[0] / seconds), "ms a step": 1e3 * seconds / steps, "waits a step": per_step}

    return [
        (f"paper-m {kind}, batch {rows}{', CUDA graphs' if recorded else ''}", partial(write, kind, rows, recorded))
        for kind in ("energy", "token", "diffusion")
        for rows in (1, 16)
        for recorded in (True, False)
    ]


def checkpoints(device: Device, peak: float | None) -> list[Case]:
    """What a checkpoint keeps a training waiting, and how long it is written beside it."""

    def save() -> Row:
        with TemporaryDirectory() as folder:
            loop, _ = training(device, "paper-m", "energy", device.rows(2), Path(folder), compiled=False)
            loop.train_step()
            saved = Checkpoints(Path(folder) / "checkpoints")
            found: Row = {}
            for name in ("first", "second"):
                device.synchronize()
                begun = time.perf_counter()
                saved.save(loop.trainee.module, loop.optimizer, Counters(1, 1.0, 0, {}, {}))
                found[f"{name} save waits, s"] = time.perf_counter() - begun
                saved.join()
                found[f"{name} written after, s"] = time.perf_counter() - begun
            found["GB"] = sum(path.stat().st_size for path in (Path(folder) / "checkpoints").iterdir()) / 1e9
            return found

    return [("paper-m energy", save)]
