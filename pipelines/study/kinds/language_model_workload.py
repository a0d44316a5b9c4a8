"""What decides the speed of a language model's training, and of what is made of the model afterwards."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from calm_bench.config import Training
from calm_bench.families.base import family_of
from calm_bench.flops import inference_flops, training_flops
from pipelines.study.workload import Speed, Workload

STEP_CALLS_S = 0.01
WINDOW_CALLS_S = 0.001
CHUNK_CALLS_S = 0.003
"""Seconds of an optimizer step, an evaluation's window and a written chunk of a vanishingly small model on a CPU."""


class LanguageModelWorkload(Workload):
    """The language model of an experiment, whatever its family."""

    kind = "language_model"

    @property
    def label(self) -> str:
        model = self.experiment.model
        return model.family.label(model.chunk_size)

    @property
    def training(self) -> Training:
        return self.experiment.model.training

    @property
    def calls(self) -> Speed:
        samples, chunk_size = self.experiment.samples, self.experiment.model.chunk_size
        chunks = len(samples.temperatures) * samples.num_tokens / chunk_size if samples.num_prompts else 0.0
        return Speed(STEP_CALLS_S, 0.0, 0.0, WINDOW_CALLS_S, CHUNK_CALLS_S * chunks)

    @property
    def gpu_utilisation(self) -> float:
        # A token model computes the logits of every token, a chunk model none or those of a small network.
        return 0.20 if self.is_token else super().gpu_utilisation

    @cached_property
    def work(self) -> Speed:
        experiment, model, training = self.experiment, self.experiment.model, self.training
        flops = training_flops(
            model, experiment.autoencoder, self.vocab_size, training.sequence_length // model.chunk_size
        ).total
        step = flops * training.batch_size * training.sequence_length
        forward = flops / 3
        evaluation, samples = experiment.evaluation, experiment.samples
        inference = inference_flops(
            model, experiment.autoencoder, self.vocab_size, max(1, evaluation.context_length // model.chunk_size)
        )
        reading = sum(inference.parts.get(part, 0.0) for part in ("backbone", "attention", "input"))
        drawing = inference.total - reading
        positions = len(range(evaluation.first_position, evaluation.context_length - 3, evaluation.position_stride))
        drawn = evaluation.num_samples * max(4, model.chunk_size)
        is_exact = family_of(model).likelihood_of(model) == "exact"
        if is_exact:
            scored = 2 * 4 * inference.total
        else:
            # A first chunk needs no reading; later ones only where a sample agreed with something so far.
            first = min(1.0, model.chunk_size / 4)
            scored = drawn * (first * drawing + 0.4 * (1 - first) * inference.total)
        window = evaluation.context_length * reading + positions * scored
        written = samples.num_prompts * samples.num_tokens
        texts = sum(
            written * (reading + (1 if temperature == 1 or is_exact else samples.candidates) * drawing)
            for temperature in samples.temperatures
        )
        entropy = 0.0
        if experiment.trajectory is not None:
            draws = 0 if is_exact else experiment.trajectory.num_samples
            entropy = evaluation.context_length * (reading + max(draws, 1) * drawing)
        return Speed(step, forward, 0.0, window, texts, entropy)

    @property
    def content(self) -> dict[str, Any]:
        experiment = self.experiment
        unused = {"training"} | experiment.model.family.unused - {"chunk_size"}
        found: dict[str, Any] = {
            "model": experiment.model.model_dump(mode="json", exclude=unused),
            "evaluation": experiment.evaluation.model_dump(mode="json", exclude={"seed", "split", "max_windows"}),
            "samples": experiment.samples.model_dump(mode="json"),
        }
        if experiment.model.needs_autoencoder:
            found["autoencoder"] = experiment.autoencoder.model_dump(mode="json", exclude={"training", "chunk_size"})
        if experiment.trajectory is not None:
            found["entropy_draws"] = experiment.trajectory.num_samples
        return found
