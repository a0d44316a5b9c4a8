"""Training steps on this CPU in bf16 against fp32, in turns: is `model.training.precision=bf16` worth it here?

    python -m bench.bf16

CPU seconds of one thread, medians; small models of both kinds at three widths, with contexts of 128 steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.same_batch import SameBatch
from calm_bench.bf16_speed import bf16_speedup
from calm_bench.config import Experiment
from calm_bench.lm.folder import build_language_model
from calm_bench.training.autoencoder import untrained
from calm_bench.training.loop import Loop
from calm_bench.training.task import TrainingTask

VOCABULARY, ROWS, STEPS = 4096, 4, 128
WIDTHS = (128, 256, 512)
FAMILIES: dict[str, dict[str, Any]] = {
    "token": {"kind": "token", "chunk_size": 1},
    "energy, K=4": {"chunk_size": 4, "head": {"kind": "energy", "num_blocks": 2}},
}


def training(family: str, width: int, precision: str, folder: Path) -> Loop:
    length = STEPS * FAMILIES[family]["chunk_size"]
    settings = {"num_steps": 10**6, "batch_size": ROWS, "sequence_length": length, "precision": precision}
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_layers": 2, "num_attention_heads": width // 64}
    autoencoder = {"latent_size": 64, "hidden_size": 128, "intermediate_size": 256}
    described = Experiment.model_validate(
        {"autoencoder": autoencoder, "model": {**sizes, **FAMILIES[family], "training": settings}}
    )
    inner = untrained(described, VOCABULARY) if described.model.needs_autoencoder else None
    model = build_language_model(described.model, VOCABULARY, inner, seed=0)
    tokens = torch.randint(VOCABULARY, (ROWS, length), generator=torch.Generator().manual_seed(0))
    task = TrainingTask(model, model.loss, model.loss, tokens[:0], 1.0)
    return Loop(task, SameBatch(tokens), described.model.training, folder / precision, 0, "cpu", lambda: False)


def seconds(family: str, width: int, repeats: int) -> dict[str, float]:
    """Of a step, by number format."""
    with TemporaryDirectory() as folder:
        loops = {precision: training(family, width, precision, Path(folder)) for precision in ("fp32", "bf16")}
        times: dict[str, list[float]] = {precision: [] for precision in loops}
        for _ in range(1 + repeats):
            for precision, loop in loops.items():
                before = time.process_time()
                loop.train_step()
                times[precision].append(time.process_time() - before)
    # The first step makes the optimizer's state.
    return {precision: median(each[1:]) for precision, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    named = [name for name, has in torch.cpu.get_capabilities().items() if has and "bf16" in name]
    print(f"instructions for bf16: {', '.join(named) or 'none'}; a product alone: {bf16_speedup():.2f}")
    for family in FAMILIES:
        for width in WIDTHS:
            found = seconds(family, width, repeats)
            print(
                f"{family}, width {width}: {found['fp32']:.3f} s a step in fp32, {found['bf16']:.3f} s in bf16, "
                f"{found['fp32'] / found['bf16']:.2f} times as fast",
                flush=True,
            )


if __name__ == "__main__":
    main()
