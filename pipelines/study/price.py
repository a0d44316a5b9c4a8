"""What an experiment costs, from its description alone."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calm_bench.config import Experiment, Tokens, Training
from calm_bench.flops import (
    CostBreakdown,
    autoencoder_parameter_count,
    autoencoder_training_flops,
    inference_flops,
    parameter_count,
    training_flops,
    training_steps,
)
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean

BYTES_VOCABULARY = 257
KNOWN_VOCABULARIES = {
    r"meta-llama/(meta-)?llama-3(\.\d)?-\d+b(-instruct)?": 128256,
    r"meta-llama/llama-2-\d+b(-chat)?(-hf)?": 32000,
    r"((openai-community/)?gpt2(-medium|-large|-xl)?|(distilbert/)?distilgpt2)": 50257,
}
"""Vocabulary sizes of tokenizers by their whole name on the hub, in lower case, for pricing without a network. What
others publish under a similar name may have added tokens or left some out."""


@dataclass(frozen=True)
class TrainingPrice:
    """One training: its length and its FLOPs by part, and the parameters it trains."""

    parameters: CostBreakdown
    steps: int
    tokens: int
    flops: CostBreakdown
    """FLOPs of the whole training."""


@dataclass(frozen=True)
class Price:
    """An experiment: both trainings, and a generated token."""

    vocab_size: int
    autoencoder: TrainingPrice | None
    model: TrainingPrice
    inference: CostBreakdown
    """FLOPs per token in decode mode ``sample T=1``, with a full training context in the cache."""

    @property
    def training_flops(self) -> float:
        """Language model and autoencoder."""
        return self.model.flops.total + (0.0 if self.autoencoder is None else self.autoencoder.flops.total)


def price_of(experiment: Experiment, vocab_size: int | None = None) -> Price:
    """The price of one experiment, exact for its configuration: nothing is read, run or downloaded.

    Args:
        vocab_size: of the finished tokens; unset means :func:`assumed_vocab_size`.

    Raises:
        ConfigurationError: the vocabulary size of a Hugging Face tokenizer is not known without downloading it.
    """
    size = assumed_vocab_size(experiment.tokens) if vocab_size is None else vocab_size
    model, autoencoder = experiment.model, experiment.autoencoder
    steps = model.training.sequence_length // model.chunk_size
    autoencoder_price = None
    if model.needs_autoencoder:
        parameters = autoencoder_parameter_count(autoencoder, model.chunk_size, size)
        autoencoder_price = _training(
            autoencoder.training, parameters, autoencoder_training_flops(autoencoder, model.chunk_size, size)
        )
        if autoencoder.pretrained.folder is not None:
            stated = CostBreakdown({"pretrained": autoencoder.pretrained.training_flops})
            autoencoder_price = TrainingPrice(parameters, 0, 0, stated)
    return Price(
        vocab_size=size,
        autoencoder=autoencoder_price,
        model=_training(
            model.training,
            parameter_count(model, autoencoder, size),
            training_flops(model, autoencoder, size, steps),
        ),
        inference=inference_flops(model, autoencoder, size, steps),
    )


def assumed_vocab_size(tokens: Tokens) -> int:
    """Vocabulary size for pricing: known for bytes and bpe and looked up in a folder, or in the hub's cache, else
    by the tokenizer's whole name (:data:`KNOWN_VOCABULARIES`) or ``tokens.vocab_size``.

    Raises:
        ConfigurationError: none of these says it, or the folder holds no tokenizer that can be used.
    """
    if tokens.tokenizer == "bytes":
        return BYTES_VOCABULARY
    from calm_bench.hub_commit import kept_snapshot
    from calm_bench.tokens.folder_size import folder_vocab_size, loaded_vocab_size
    from calm_bench.tokens.tokenizer import TokenizerError

    folder = Path(tokens.tokenizer).expanduser()
    if tokens.tokenizer != "bpe" and folder.is_dir():
        # The name of a folder says nothing about what lies in it.
        try:
            return folder_vocab_size(folder) or loaded_vocab_size(folder)
        except (TokenizerError, OSError) as error:
            raise ConfigurationError(str(error)) from error
    kept = None if tokens.tokenizer == "bpe" else kept_snapshot(tokens.tokenizer, tokens.revision)
    if kept is not None:
        # A part of it may be there alone.
        with suppress(TokenizerError, OSError):
            return folder_vocab_size(kept) or loaded_vocab_size(kept)
    if tokens.tokenizer == "bpe":
        return tokens.vocab_size
    for pattern, size in KNOWN_VOCABULARIES.items():
        if re.fullmatch(pattern, tokens.tokenizer.lower()):
            return size
    # Nobody can tell whether the default was given: a tokenizer of just that size has to be here.
    usual = Tokens().vocab_size
    if tokens.vocab_size != usual:
        return tokens.vocab_size
    near = did_you_mean(tokens.tokenizer.lower(), ["bytes", "bpe"])
    meant = near if "did you mean" in near else ""
    raise ConfigurationError(
        f"tokens.vocab_size: the vocabulary of {tokens.tokenizer!r} is not known without downloading it{meant}; set "
        f"tokens.vocab_size to its size to price this study; one of {usual}, which is the default, counts where the "
        f"tokenizer is here (hf download {_repository(tokens)})"
    )


def _repository(tokens: Tokens) -> str:
    revision = [] if tokens.revision is None else ["--revision", tokens.revision]
    return shlex.join([tokens.tokenizer, *revision])


def is_out_of_sight(tokens: Tokens) -> bool:
    """Whether the tokenizer is one of the hub of which nothing is kept here, so that its size rests on what is said."""
    if tokens.tokenizer in ("bytes", "bpe") or Path(tokens.tokenizer).expanduser().is_dir():
        return False
    from calm_bench.hub_commit import kept_snapshot

    return kept_snapshot(tokens.tokenizer, tokens.revision) is None


def _training(training: Training, parameters: CostBreakdown, flops_per_token: CostBreakdown) -> TrainingPrice:
    steps = training_steps(training, flops_per_token.total)
    tokens = steps * training.batch_size * training.sequence_length
    return TrainingPrice(parameters, steps, tokens, flops_per_token.times(tokens))
