"""How fast trainings are on this machine, from a few steps of each: what a plan's times are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calm_bench.config import Experiment
from pipelines.study.workload import Speed, Workload

if TYPE_CHECKING:
    from calm_bench.lm.base import ChunkLanguageModel

WRITTEN_CHUNKS = 4
"""Chunks of a text whose time is taken on a CPU; all of it takes as many times as long as it has more. On a GPU all of
it is written: the first steps of a text are recorded there, and the others played back."""


def measure_autoencoder(workload: Workload, device: str, seconds: float) -> Speed:
    """Speed of an autoencoder's training on ``device``, found in about ``seconds``."""
    from calm_bench.training.speed import autoencoder_speed

    found = autoencoder_speed(workload.experiment, workload.vocab_size, device, seconds)
    return Speed(found.step, found.validation_token, found.reconstruction_token)


def measure_language_model(workload: Workload, device: str, seconds: float) -> Speed:
    """Speed of a language model's training on ``device``, and of what is made of the model afterwards."""
    from calm_bench.training.speed import language_model_speed

    experiment = workload.experiment
    found, model = language_model_speed(experiment, workload.vocab_size, device, seconds)
    entropy = 0.0 if experiment.trajectory is None else _entropy_window(experiment, model)
    return Speed(
        found.step,
        found.validation_token,
        window=_window(experiment, model),
        texts=_texts(experiment, model),
        entropy_window=entropy,
    )


def _window(experiment: Experiment, model: ChunkLanguageModel) -> float:
    """Seconds of an evaluation's window, from one batch of them."""
    import numpy as np

    from calm_bench.training.speed import clock
    from evals.estimators import estimator_for, score_windows
    from evals.evaluate import WINDOWS_AT_ONCE
    from evals.protocol import protocol_for
    from evals.samplers import ModelSampler

    chunk_size = experiment.model.chunk_size if experiment.model.is_chunked else None
    protocol = protocol_for(experiment.evaluation, "", "", chunk_size)
    windows = np.random.default_rng(0).integers(0, model.vocab_size, (WINDOWS_AT_ONCE, protocol.context_length))
    sampler = ModelSampler(model)
    rules = protocol.num_samples, protocol.ngram_lengths, range(WINDOWS_AT_ONCE), estimator_for(sampler, protocol)
    device = next(model.parameters()).device
    if device.type == "cuda":
        # What a GPU computes for the first time is loaded first.
        score_windows(sampler, windows, protocol.positions, *rules)
    now = clock(str(device))
    begun = now()
    score_windows(sampler, windows, protocol.positions, *rules)
    return (now() - begun) / WINDOWS_AT_ONCE


def _texts(experiment: Experiment, model: ChunkLanguageModel) -> float:
    """Seconds of all texts of the stage ``samples``, from as many chunks at each temperature as are timed."""
    import torch

    from calm_bench.sampling.generate import generate_batch
    from calm_bench.sampling.temperature import Decoding
    from calm_bench.training.speed import clock

    samples = experiment.samples
    device = next(model.parameters()).device
    now = clock(str(device))
    total = 0.0
    for temperature in samples.temperatures if samples.num_prompts else ():
        prompts = [[0] * samples.prompt_tokens] * samples.num_prompts
        generators = [torch.Generator(device).manual_seed(number) for number in range(samples.num_prompts)]
        decoding = Decoding(temperature, "batch", samples.candidates)
        length = samples.num_tokens
        if device.type == "cpu":
            length = min(length, WRITTEN_CHUNKS * model.chunk_size)
        begun = now()
        written = generate_batch(model, prompts, length, generators, model.vocab_size - 1, decoding)
        longest = max(len(text.tokens) for text in written)
        # An untrained model may end a text at once.
        total += (now() - begun) * samples.num_tokens / max(longest, model.chunk_size)
    return total


def _entropy_window(experiment: Experiment, model: ChunkLanguageModel) -> float:
    """Seconds of a window whose cross-entropy is taken."""
    import torch

    from calm_bench.training.speed import clock, wait_for
    from evals.cross_entropy import chunk_log_likelihoods

    assert experiment.trajectory is not None
    evaluation = experiment.evaluation
    device = next(model.parameters()).device
    tokens = torch.randint(0, model.vocab_size, (evaluation.context_length,), device=device)
    first = max(evaluation.first_position, model.chunk_size)
    now = clock(str(device))
    wait_for(str(device))
    begun = now()
    chunk_log_likelihoods(model, tokens, first, experiment.trajectory.num_samples, 0)
    wait_for(str(device))
    return now() - begun
