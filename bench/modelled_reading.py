"""What scoring and writing would take on a GPU by a model of its kernels, at CALM-M's size; without a GPU.

    python -m bench.modelled_reading

By :mod:`tests.gpu.roofline`. A scored batch is 16 windows of 2048 tokens read once and 8 samples drawn at every eighth
token, each decoded whole as where all agree (K = 4, so that no second chunk is drawn). A written step is one step of
the backbone for every row and one draw; its kernels are launched one by one, or those of the backbone together as one
CUDA graph.
"""

from __future__ import annotations

import warnings

import torch
from torch import Generator
from torch._subclasses.fake_tensor import FakeTensorMode

from calm_bench.finite import deferred_checks
from calm_bench.lm import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.training.autoencoder import untrained
from tests.gpu.paper_sizes import VOCAB_SIZE, as_on_a_gpu, experiment
from tests.gpu.roofline import LAUNCH_S, PEAKS, Kernels, Roofline

KINDS = ["token", "patch", "multi_token", "block_diffusion", "energy", "flow", "shortcut", "diffusion"]
SCORED = ["energy", "flow", "shortcut", "diffusion"]
WINDOWS, LENGTH, STRIDE, SAMPLES = 16, 2048, 8, 8
PROMPT, ROOM = 64, 256
"""Chunks that are held before the step, and at most."""


def model_of(kind: str) -> ChunkLanguageModel:
    described = experiment("paper-m", kind)
    inner = untrained(described, VOCAB_SIZE) if described.model.needs_autoencoder else None
    return build_language_model(described.model, VOCAB_SIZE, inner, seed=0).eval()


def step(kind: str, rows: int) -> tuple[Kernels, Kernels]:
    """Kernels of the backbone and of the draw of one written step, in TF32."""
    with FakeTensorMode(), deferred_checks(), torch.inference_mode():
        model = model_of(kind)
        cache = model.new_cache(ROOM)
        positions = torch.arange(PROMPT).expand(rows, -1)
        model.read(torch.zeros((rows, PROMPT * model.chunk_size), dtype=torch.long), positions, cache)
        chunk, place = torch.zeros((rows, model.chunk_size), dtype=torch.long), positions[:, :1]
        with Roofline(PEAKS["TF32"]) as backbone:
            hidden = model.read(chunk, place, cache)[:, -1]
        with Roofline(PEAKS["TF32"]) as drawn:
            model.draw_rows(hidden, 1, [Generator() for _ in range(rows)])
    return backbone.eager, drawn.eager


def written() -> None:
    print("| writes | rows | kernels | launched, ms a step | tokens/s | recorded, ms | tokens/s |")
    print("|---" * 7 + "|")
    for kind in KINDS:
        size = experiment("paper-m", kind).model.chunk_size
        for rows in (1, 16):
            backbone, drawn = step(kind, rows)
            plain = max(backbone.wall, backbone.seconds) + drawn.wall
            recorded = backbone.seconds + LAUNCH_S + drawn.wall
            cells = [f"{1e3 * each:.2f} | {rows * size / each:,.0f}" for each in (plain, recorded)]
            print(f"| {kind} | {rows} | {backbone.count + drawn.count} | {' | '.join(cells)} |", flush=True)


def scored() -> None:
    print("| scores | kernels | fp32, ms | TF32, ms | bf16, ms |")
    print("|---" * 5 + "|")
    for kind in SCORED:
        cells = []
        for peak in (PEAKS["fp32"], PEAKS["TF32"], PEAKS["bf16"]):
            with FakeTensorMode(), deferred_checks(), torch.no_grad():
                model = model_of(kind)
                windows = torch.zeros((WINDOWS, LENGTH), dtype=torch.long)
                positions = torch.arange(LENGTH // 8, LENGTH - 4, STRIDE) // model.chunk_size - 1

                with Roofline(peak) as roofline:
                    hidden = model.read_text(windows).hidden[:, positions].flatten(0, 1)
                    model.draw(hidden, SAMPLES, Generator())
            cells.append(f"{1e3 * roofline.eager.wall:.0f}")
        print(f"| {kind} | {roofline.eager.count} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    warnings.filterwarnings("ignore", message="Mismatch dtype")
    with as_on_a_gpu():
        scored()
        print()
        written()


if __name__ == "__main__":
    main()
