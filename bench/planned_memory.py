"""What plans say that trainings take, beside what their tensors take, at the paper's sizes; no GPU is needed.

    python -m bench.planned_memory
    python -m bench.planned_memory --activation-checkpointing
    python -m bench.planned_memory --validation

Tensors without data stand for the model: every operation of two micro-batches in bf16 is dispatched, nothing is
computed, and the bytes that would be held are counted. The optimizer's two averages and the process are added alike on
both sides. The second column is the largest number of sequences at once that ``execution.micro_batch=auto`` takes on a
GPU of 80 GB. ``--validation`` counts a step's micro-batch as it is configured, the same sequences without gradients,
and a whole batch without gradients, which is never computed at once.
"""

from __future__ import annotations

import argparse
import warnings

from calm_bench.config import Experiment
from calm_bench.memory import Memory
from calm_bench.worker_memory import fitting_rows
from tests.gpu.paper_sizes import (
    FAMILIES,
    HEADS,
    TRAININGS,
    as_on_a_gpu,
    experiment,
    held,
    held_in_validation,
    planned,
)

PRESETS = ["paper-s", "paper-m", "paper-l", "paper-xl"]
SEQUENCES = [2, 16]
GPU_BYTES = 80e9
MOST = 1024
"""Sequences at once beyond which nobody asks."""


def total(memory: Memory) -> float:
    return sum(memory.parts.parts.values())


def measured(described: Experiment, kind: str, sequences: int, recomputes: bool) -> float:
    parts = planned(described, kind, sequences, recomputes).parts.parts
    return held(described, kind, sequences, recomputes) + parts["optimizer"] + parts["process"]


def plans(again: bool) -> None:
    print("| training | fits 80 GB | " + " | ".join(f"GB at {n}, planned | tensors" for n in SEQUENCES) + " |")
    print("|---|---|" + "---|---|" * len(SEQUENCES))
    for preset in PRESETS:
        # An autoencoder has no layers that are worth it.
        first = ["autoencoder"] if preset == "paper-s" and not again else []
        for kind in [*first, *FAMILIES, *HEADS]:
            described = experiment(preset, kind)
            fits = fitting_rows(
                "auto", MOST, lambda n, of=described, what=kind: total(planned(of, what, n, again)), GPU_BYTES
            )
            cells = [
                f"{total(planned(described, kind, n, again)) / 1e9:.1f} | "
                f"{measured(described, kind, n, again) / 1e9:.1f}"
                for n in SEQUENCES
            ]
            name = kind if kind == "autoencoder" else f"{preset} {kind}"
            print(f"| {name} | {fits} | {' | '.join(cells)} |", flush=True)


def validations() -> None:
    print("| paper-m | sequences | step, GB | validation, GB | a whole batch, GB |")
    print("|---|---|---|---|---|")
    for kind in TRAININGS:
        described = experiment("paper-m", kind)
        training = described.autoencoder.training if kind == "autoencoder" else described.model.training
        rows = training.batch_size // training.gradient_accumulation
        averages = planned(described, kind, rows).parts.parts["optimizer"]
        found = [
            held(described, kind, rows),
            held_in_validation(described, kind, rows),
            held_in_validation(described, kind, training.batch_size),
        ]
        cells = " | ".join(f"{(each + averages) / 1e9:.1f}" for each in found)
        print(f"| {kind} | {rows} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--activation-checkpointing", action="store_true", help="layers are computed again")
    parser.add_argument("--validation", action="store_true", help="validations beside steps")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="Mismatch dtype")
    with as_on_a_gpu():
        if given.validation:
            validations()
        else:
            plans(given.activation_checkpointing)


if __name__ == "__main__":
    main()
