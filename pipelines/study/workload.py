"""What a stage's speed depends on: the sizes of a model and of its batches, not how long it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from calm_bench.config import Experiment, Training
from calm_bench.families.base import family_of
from calm_bench.fingerprint import identity
from calm_bench.flops import CostBreakdown, autoencoder_training_flops, inference_flops, training_flops

_OF_A_STEP = {"batch_size", "sequence_length", "gradient_accumulation", "precision"}

STEP_CALLS_S = 0.01
WINDOW_CALLS_S = 0.001
CHUNK_CALLS_S = 0.003
"""Seconds of an optimizer step, an evaluation's window and a written chunk of a vanishingly small model on a CPU."""

TrainedKind = Literal["autoencoder", "language_model"]


@dataclass(frozen=True)
class Speed:
    """Seconds of what stages do, over and over, with one model. Nothing is known of what is 0."""

    step: float
    """Seconds of an optimizer step."""
    validation_token: float
    """Seconds per held-out token of a validation."""
    reconstruction_token: float = 0.0
    """Seconds per token that an autoencoder reconstructs."""
    window: float = 0.0
    """Seconds per window of an evaluation."""
    texts: float = 0.0
    """Seconds of all texts that a language model writes as samples."""
    entropy_window: float = 0.0
    """Seconds per window whose cross-entropy is taken."""


@dataclass(frozen=True)
class Workload:
    """A model of an experiment with its batches and its vocabulary."""

    kind: TrainedKind
    experiment: Experiment
    vocab_size: int

    @cached_property
    def identity(self) -> str:
        """16 hex digits of all that decides the speed."""
        return identity(self._content())

    @property
    def training(self) -> Training:
        return self.experiment.autoencoder.training if self.kind == "autoencoder" else self.experiment.model.training

    @property
    def label(self) -> str:
        model = self.experiment.model
        if self.kind == "autoencoder":
            return f"autoencoder K={model.chunk_size}"
        return model.family.label(model.chunk_size)

    @cached_property
    def flops_per_step(self) -> float:
        """Training FLOPs of an optimizer step."""
        return self._training_flops.total * self.training.batch_size * self.training.sequence_length

    def speed_at(self, flops_per_second: float, scoring_flops_per_second: float) -> Speed:
        """What the FLOPs come to at a rate for training and one for scoring and sampling."""
        rates = dict.fromkeys(vars(self.work), scoring_flops_per_second) | {"step": flops_per_second}
        calls = vars(self.calls)
        return Speed(**{name: value / rates[name] + calls[name] for name, value in vars(self.work).items()})

    @property
    def calls(self) -> Speed:
        """Seconds that the same takes however small the model is: thousands of calls from Python into torch."""
        if self.kind == "autoencoder":
            return Speed(STEP_CALLS_S / 2, 0.0)
        samples, chunk_size = self.experiment.samples, self.experiment.model.chunk_size
        chunks = len(samples.temperatures) * samples.num_tokens / chunk_size if samples.num_prompts else 0.0
        return Speed(STEP_CALLS_S, 0.0, 0.0, WINDOW_CALLS_S, CHUNK_CALLS_S * chunks)

    @cached_property
    def work(self) -> Speed:
        """FLOPs in the place of seconds; those of scoring and sampling are rough."""
        experiment, model = self.experiment, self.experiment.model
        step = self.flops_per_step
        forward = self._training_flops.total / 3
        if self.kind == "autoencoder":
            # A validation reconstructs its text too; the decoder and its logits are most of it.
            return Speed(step, 2 * forward, forward)
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

    @cached_property
    def _training_flops(self) -> CostBreakdown:
        model, autoencoder = self.experiment.model, self.experiment.autoencoder
        if self.kind == "autoencoder":
            return autoencoder_training_flops(autoencoder, model.chunk_size, self.vocab_size)
        return training_flops(model, autoencoder, self.vocab_size, model.training.sequence_length // model.chunk_size)

    def _content(self) -> dict[str, Any]:
        experiment = self.experiment
        content: dict[str, Any] = {
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "chunk_size": experiment.model.chunk_size,
            "batches": self.training.model_dump(mode="json", include=_OF_A_STEP),
        }
        if self.kind == "autoencoder" or experiment.model.needs_autoencoder:
            content["autoencoder"] = experiment.autoencoder.model_dump(mode="json", exclude={"training", "chunk_size"})
        if self.kind == "language_model":
            unused = {"training"} | experiment.model.family.unused - {"chunk_size"}
            content["model"] = experiment.model.model_dump(mode="json", exclude=unused)
            content["evaluation"] = experiment.evaluation.model_dump(
                mode="json", exclude={"seed", "split", "max_windows"}
            )
            content["samples"] = experiment.samples.model_dump(mode="json")
            if experiment.trajectory is not None:
                content["entropy_draws"] = experiment.trajectory.num_samples
        return content


def workloads_of(experiment: Experiment, vocab_size: int) -> tuple[Workload, ...]:
    """The models that ``experiment`` trains."""
    model = Workload("language_model", experiment, vocab_size)
    if not experiment.model.needs_autoencoder:
        return (model,)
    return Workload("autoencoder", experiment, vocab_size), model
