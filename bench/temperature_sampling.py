"""Temperature sampling at T = 0.5, batch 16, against the plain batch approximation with N = 200.

    OMP_NUM_THREADS=1 python -m bench.temperature_sampling

Claims: the exact sampler is at least 3 times as fast where two samples agree 5 % of the time or more; the batch
approximation is no slower with at most a quarter of the memory; 16 x 200 candidates at vocabulary 128256 stay under
2 GB.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from bench.measure import in_a_fresh_process, machine, medians, peak_memory
from bench.models import WIDTH, agreements, calm, states_that_agree
from bench.plain_sampling import plain_batch_sampling
from calm_bench.lm import Calm
from calm_bench.sampling.temperature import Decoding, sample_chunks

BATCH, VOCABULARY, LARGE_VOCABULARY, TEMPERATURE = 16, 4096, 128_256, 0.5
AGREEMENTS = (0.055, 0.3)  # as measured on few samples, a little too high


def ours(model: Calm, hidden: Tensor, method: str, seed: int = 0) -> float:
    """Candidates drawn, per row."""
    generators = [torch.Generator().manual_seed(seed * BATCH + row) for row in range(BATCH)]
    decoding = Decoding(TEMPERATURE, "exact" if method == "exact" else "batch")
    return float(sample_chunks(model, hidden, decoding, generators).head_evaluations.double().mean())


def states() -> Tensor:
    return torch.randn((BATCH, WIDTH), generator=torch.Generator().manual_seed(0))


def memory(method: str, vocabulary: int) -> float:
    """MB of one call."""
    model, hidden = calm(vocabulary, autoencoder_width=64 if vocabulary == LARGE_VOCABULARY else WIDTH // 2), states()
    if method == "plain":
        return peak_memory(lambda: plain_batch_sampling(model, hidden, TEMPERATURE))
    return peak_memory(lambda: ours(model, hidden, method))


def compare(model: Calm, wanted: float) -> None:
    """Print the times where two samples agree about as often as ``wanted``."""
    hidden = states_that_agree(model, wanted, BATCH)
    agree = float(agreements(model, hidden, num_samples=1000).mean())
    draws: list[float] = []

    def exact() -> None:  # another seed every time, since the number of stages is random
        draws.append(ours(model, hidden, "exact", seed=len(draws)))

    taken = medians(
        {
            "plain, N=200": lambda: plain_batch_sampling(model, hidden, TEMPERATURE),
            "batch, N=200": lambda: ours(model, hidden, "batch"),
            "exact": exact,
        }
    )
    for name, seconds in taken.items():
        ratio = taken["plain, N=200"] / seconds
        drawn = sum(draws) / len(draws) if name == "exact" else 200
        print(f"two samples agree {agree:5.1%}: {name:13} {1000 * seconds:7.1f} ms  {ratio:5.2f} x  {drawn:.0f} draws")


def main() -> None:
    print(f"{machine()}; batch {BATCH}, K=4, vocabulary {VOCABULARY}, T={TEMPERATURE}, medians of five")
    model = calm(VOCABULARY)
    for wanted in AGREEMENTS:
        compare(model, wanted)
    plain = in_a_fresh_process("bench.temperature_sampling", "plain", str(VOCABULARY))
    for method in ("batch", "exact"):
        used = in_a_fresh_process("bench.temperature_sampling", method, str(VOCABULARY))
        print(f"memory of a call: {method} {used:.0f} MB, plain {plain:.0f} MB, {used / plain:.2f} of it")
    used = in_a_fresh_process("bench.temperature_sampling", "batch", str(LARGE_VOCABULARY))
    print(f"memory of a call at vocabulary {LARGE_VOCABULARY}: batch {used:.0f} MB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        print(memory(sys.argv[1], int(sys.argv[2])))
    else:
        main()
