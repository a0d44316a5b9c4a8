"""The share of a GPU's peak that trainings would reach by a model of its kernels, at the paper's sizes; without a GPU.

    python -m bench.modelled_mfu
    python -m bench.modelled_mfu --activation-checkpointing

A micro-batch, forward and backward in bf16, by :mod:`tests.gpu.roofline`. MFU is the FLOPs of :mod:`calm_bench.flops` a
second over the peak. ``--activation-checkpointing`` tells what layers cost that are computed again.
"""

from __future__ import annotations

import argparse
import warnings

import torch
from torch import Generator
from torch._subclasses.fake_tensor import FakeTensorMode

from calm_bench.config import Experiment
from calm_bench.flops import autoencoder_training_flops, training_flops
from tests.gpu.paper_sizes import VOCAB_SIZE, as_on_a_gpu, built, experiment, tokens_of
from tests.gpu.roofline import PEAK, Roofline

TRAININGS = [
    ("paper-m", "energy", 16),
    ("paper-m", "flow", 16),
    ("paper-m", "diffusion", 16),
    ("paper-m", "shortcut", 16),
    ("paper-m", "patch", 16),
    ("paper-m", "multi_token", 16),
    ("paper-m", "block_diffusion", 16),
    ("paper-l", "energy", 8),
    ("paper-xl", "energy", 4),
    ("paper-s", "token", 32),
    ("paper-m", "token", 32),
    ("paper-m", "autoencoder", 8),
]
"""Presets, kinds, and sequences at once."""


def model_flops(described: Experiment, kind: str) -> float:
    """FLOPs that a training needs a token."""
    if kind == "autoencoder":
        return autoencoder_training_flops(described.autoencoder, described.model.chunk_size, VOCAB_SIZE).total
    model = described.model
    steps = model.training.sequence_length // model.chunk_size
    return training_flops(model, described.autoencoder if model.needs_autoencoder else None, VOCAB_SIZE, steps).total


def counted(described: Experiment, kind: str, sequences: int, recomputes: bool = False) -> tuple[Roofline, int]:
    """The operations of one micro-batch, and its tokens."""
    with FakeTensorMode():
        tokens = tokens_of(described, kind, sequences)
        loss, _ = built(described, kind, recomputes)
        with torch.autocast("cpu", dtype=torch.bfloat16), Roofline() as roofline:
            value, _ = loss(tokens, Generator())
            value.backward()
            roofline.end_run()
    return roofline, tokens.numel()


def shares() -> None:
    print("| training | sequences | kernels | ms | MFU | kernels, compiled | ms | MFU |")
    print("|---" * 8 + "|")
    for preset, kind, sequences in TRAININGS:
        described = experiment(preset, kind)
        roofline, tokens = counted(described, kind, sequences)
        flops = tokens * model_flops(described, kind)
        cells = [
            f"{kernels.count} | {1e3 * kernels.wall:.0f} | {flops / kernels.wall / PEAK:.0%}"
            for kernels in (roofline.eager, roofline.compiled)
        ]
        name = kind if kind == "autoencoder" else f"{preset} {kind}"
        print(f"| {name} | {sequences} | {' | '.join(cells)} |", flush=True)


def costs_of_computing_again() -> None:
    print("| training | sequences | FLOPs, times | as it is, times | compiled, times |")
    print("|---" * 5 + "|")
    for preset, kind, sequences in TRAININGS:
        if kind == "autoencoder":
            continue
        described = experiment(preset, kind)
        (plain, _), (again, _) = (counted(described, kind, sequences, recomputes) for recomputes in (False, True))
        cells = [
            f"{again.eager.flops / plain.eager.flops:.2f}",
            f"{again.eager.wall / plain.eager.wall:.2f}",
            f"{again.compiled.wall / plain.compiled.wall:.2f}",
        ]
        print(f"| {preset} {kind} | {sequences} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--activation-checkpointing", action="store_true", help="layers are computed again")
    again = parser.parse_args().activation_checkpointing
    warnings.filterwarnings("ignore", message="Mismatch dtype")
    with as_on_a_gpu():
        costs_of_computing_again() if again else shares()


if __name__ == "__main__":
    main()
