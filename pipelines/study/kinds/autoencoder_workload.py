"""What decides the speed of an autoencoder's training."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from calm_bench.config import Training
from calm_bench.flops import autoencoder_training_flops
from pipelines.study.workload import Speed, Workload

STEP_CALLS_S = 0.005
"""Seconds of an optimizer step of a vanishingly small autoencoder on a CPU."""


class AutoencoderWorkload(Workload):
    """The autoencoder of an experiment."""

    kind = "autoencoder"

    @property
    def label(self) -> str:
        return f"autoencoder K={self.experiment.model.chunk_size}"

    @property
    def training(self) -> Training:
        return self.experiment.autoencoder.training

    @cached_property
    def work(self) -> Speed:
        experiment, training = self.experiment, self.training
        flops = autoencoder_training_flops(experiment.autoencoder, experiment.model.chunk_size, self.vocab_size).total
        forward = flops / 3
        # A validation reconstructs its text too; the decoder and its logits are most of it.
        return Speed(flops * training.batch_size * training.sequence_length, 2 * forward, forward)

    @property
    def calls(self) -> Speed:
        return Speed(STEP_CALLS_S, 0.0)

    @property
    def gpu_utilisation(self) -> float:
        # Small matrices, and logits of every token.
        return 0.12

    @property
    def content(self) -> dict[str, Any]:
        return {"autoencoder": self.experiment.autoencoder.model_dump(mode="json", exclude={"training", "chunk_size"})}
