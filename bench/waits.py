"""How often work waits for a GPU, and how many kernels it is, counted on a pretended one; no GPU is needed.

    python -m bench.waits

The models are small: two layers, chunks of two tokens (one of a token model), 50 words. A step has two micro-batches.
A scored batch is three windows of 32 tokens with four samples at each chunk. A written step is one of two rows at
T = 1, the ends of texts and the start left out. Kernels are torch's operations as a CPU has them, of which a GPU fuses
some; those of steps do not depend on the sizes but for the number of layers. ``tests/gpu/test_waits.py`` holds waits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from calm_bench.lm.exact import ExactModel
from calm_bench.sampling.generate import Generated, generate_batch
from calm_bench.seeding import generator
from evals.estimators import Estimator, score_windows
from evals.samplers import ModelSampler
from tests.gpu.pretended_gpu import GPU, PretendedGpu, pretended_gpu
from tests.gpu.small_models import LANGUAGE_MODELS, LENGTH, VOCAB_SIZE, language_model, tokens
from tests.gpu.test_waits import training

ROWS, STEPS = 2, 4


def counted(gpu: PretendedGpu, work: Callable[[], object]) -> tuple[int, int]:
    """Waits and kernels of ``work``."""
    gpu.waits.clear()
    gpu.kernels = 0
    work()
    return gpu.waits.total(), gpu.kernels


def of_steps(gpu: PretendedGpu, kind: str) -> tuple[int, int, int]:
    """Waits of a plain step and of a logged one, and kernels of the first."""
    with TemporaryDirectory() as folder:
        loop = training(kind, Path(folder) / "plain", 100, log_every=50)
        loop.train_step()
        plain, kernels = counted(gpu, loop.train_step)
        runs = [counted(gpu, training(kind, Path(folder) / str(every), 4, log_every=every).run)[0] for every in (1, 4)]
    return plain, plain + (runs[0] - runs[1]) // 3, kernels


def of_scoring(gpu: PretendedGpu, kind: str) -> tuple[int, int]:
    model = language_model(kind).eval().to(GPU)
    sampler, windows = ModelSampler(model), tokens(3).numpy()
    estimator: Estimator = "exact" if isinstance(model, ExactModel) else "all-pairs"
    size = model.chunk_size
    positions = list(range(size, LENGTH - 4 - size + 1, size))

    def work() -> object:
        return score_windows(sampler, windows, positions, 4, (1, 2, 3, 4), [1, 2, 3], estimator)

    work()
    return counted(gpu, work)


def of_a_written_step(gpu: PretendedGpu, kind: str) -> tuple[float, float]:
    model = language_model(kind).eval().to(GPU)

    def write(steps: int, end: int) -> list[Generated]:
        generators = [generator(index, device=GPU) for index in range(ROWS)]
        return generate_batch(model, [[1, 2, 3, 4]] * ROWS, steps * model.chunk_size, generators, end)

    # A token that nobody writes, so that no text ends.
    end = next(end for end in range(VOCAB_SIZE) if not any(text.ended for text in write(2 + STEPS, end)))
    (few, less), (many, more) = (counted(gpu, lambda steps=steps: write(steps, end)) for steps in (2, 2 + STEPS))
    return (many - few) / STEPS, (more - less) / STEPS


def main() -> None:
    warnings.filterwarnings("ignore")
    print("| | a step waits | logged | kernels | a scored batch waits | kernels | a written step waits | kernels |")
    print("|---" * 8 + "|")
    for kind in ["autoencoder", *LANGUAGE_MODELS]:
        with pretended_gpu() as gpu:
            plain, logged, kernels = of_steps(gpu, kind)
            cells = [f"{plain} | {logged} | {kernels}"]
            if kind == "autoencoder":
                cells.append(" | | | ")
            else:
                scored, written = of_scoring(gpu, kind), of_a_written_step(gpu, kind)
                cells += [f"{scored[0]} | {scored[1]}", f"{written[0]:.1f} | {written[1]:.0f}"]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
