"""Continuations for BrierLM: all positions of 8 windows of 256 tokens together, against one position after the other.

    OMP_NUM_THREADS=2 python -m bench.scoring

Claims, where the two samples of every position agree, so that all of them go on to four tokens: at least 6 times as
fast for the token model, at least 5 times at K = 1 and K = 2. At K = 4, where no sample goes on, 8 samples cost at most
2.5 times 2.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from bench.measure import machine, medians
from bench.models import LAYERS, WIDTH, calm, token_model
from bench.plain_scoring import plain_continuations
from calm_bench.lm import Calm, ChunkLanguageModel
from calm_bench.sampling.continuations import sample_continuations

WINDOWS, LENGTH, HORIZON, VOCABULARY = 8, 256, 4, 4096
SHARE = 4
"""One by one, only every fourth position is timed, and the time multiplied: it is proportional to their number."""


def certain(model: ChunkLanguageModel) -> ChunkLanguageModel:
    """So sure of every chunk that two samples agree, without being the same for every text."""
    with torch.no_grad():
        if isinstance(model, Calm):
            # Without its noise the head still depends on the hidden state.
            model.head.noise_embedding.weight.zero_()
        else:
            model.lm_head.weight.mul_(1e4)
    return model


def ours(model: ChunkLanguageModel, windows: Tensor, positions: list[int], num_samples: int) -> Tensor:
    """As the evaluation calls it."""
    generators = [torch.Generator(windows.device).manual_seed(window) for window in range(len(windows))]
    targets = torch.stack([windows[:, position : position + HORIZON] for position in positions], dim=1)
    return sample_continuations(model, windows, positions, num_samples, HORIZON, generators, targets)


def positions_of(model: ChunkLanguageModel) -> list[int]:
    """All that the model can continue."""
    return list(range(model.chunk_size, LENGTH - HORIZON + 1, model.chunk_size))


def against_one_by_one(name: str, model: ChunkLanguageModel, windows: Tensor) -> None:
    positions = positions_of(model)
    found = ours(model, windows, positions, 2)
    agree = float((found[:, :, 0] == found[:, :, 1]).all(dim=-1).float().mean())
    taken = medians(
        {
            "one by one": lambda: finished(plain_continuations(model, windows, positions[::SHARE], 2, HORIZON)),
            "together": lambda: finished(ours(model, windows, positions, 2)),
        }
    )
    taken["one by one"] *= len(positions) / len(positions[::SHARE])
    count = WINDOWS * len(positions)
    print(
        f"{name:7} {count:5} positions, {agree:4.0%} collide: one by one {1000 * taken['one by one']:7.0f} ms, "
        f"together {1000 * taken['together']:6.0f} ms  {taken['one by one'] / taken['together']:5.1f} x"
    )


def more_samples(model: ChunkLanguageModel, windows: Tensor) -> None:
    positions = positions_of(model)
    taken = medians(
        {
            "2": lambda: finished(ours(model, windows, positions, 2)),
            "8": lambda: finished(ours(model, windows, positions, 8)),
        }
    )
    print(
        f"K=4, S=2: {1000 * taken['2']:.0f} ms, S=8: {1000 * taken['8']:.0f} ms  "
        f"{taken['8'] / taken['2']:.2f} times the cost"
    )


def finished(result: Tensor) -> Tensor:
    """Wait for a GPU."""
    if result.device.type == "cuda":
        torch.cuda.synchronize()
    return result


def table(device: str) -> None:
    windows = torch.randint(VOCABULARY, (WINDOWS, LENGTH), generator=torch.Generator().manual_seed(0)).to(device)
    for name, model in {
        "token": token_model(VOCABULARY),
        "K=1": calm(VOCABULARY, 1),
        "K=2": calm(VOCABULARY, 2),
    }.items():
        against_one_by_one(name, certain(model).to(device), windows)
    more_samples(calm(VOCABULARY, 4).to(device), windows)


def main() -> None:
    print(
        f"{machine()}; {WIDTH} wide, {LAYERS} layers, vocabulary {VOCABULARY}, {WINDOWS} x {LENGTH} tokens, "
        "medians of five"
    )
    table("cpu")
    if torch.cuda.is_available():
        print(f"On {torch.cuda.get_device_name()}:")
        table("cuda")
    else:
        print("There is no GPU here, so the same on one is skipped.")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
