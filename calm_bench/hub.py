"""Our models behind the interface of transformers: ``save_pretrained``, ``from_pretrained`` and the Auto classes.

    >>> import calm_bench.hub
    >>> calm_bench.hub.wrap(network).save_pretrained("folder")
    >>> network = transformers.AutoModel.from_pretrained("folder").network

Importing this module registers the model types ``calm_bench_calm``, ``calm_bench_token`` and
``calm_bench_autoencoder``. Files and tensor names are those that training writes: folders of either origin are read by
``AutoModel`` and by :func:`calm_bench.lm.load_language_model` alike.

``AutoModelForCausalLM`` does not know them, on purpose. Whatever loads a model through it (generate, Trainer, lm-eval's
``hf`` model) takes the logits of the next token from its output, one position a token. A chunk model has no
likelihood, reads a chunk a position, and its loss is no cross-entropy: it would answer such a caller with nothing, or
with numbers that look like others and are not. An error at loading is better. Text comes from
:func:`calm_bench.sampling.generate.generate`, scores from ``evals``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from calm_bench.autoencoder import Autoencoder
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.folder import from_description
from calm_bench.tensor_files import WeightsError, listed


class CalmBenchConfig(PretrainedConfig):
    """What ``description()`` of a network says, as a configuration of transformers."""

    vocab_size: int = 0
    model: dict[str, Any] | None = None
    autoencoder: dict[str, Any] | None = None
    chunk_size: int | None = None
    document_end: int | None = None

    def description(self) -> dict[str, Any]:
        """The description of the network, without what transformers adds."""
        names = ("model", "autoencoder", "chunk_size", "document_end")
        fields = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in fields.items() if value is not None}
        return {"model_type": self.model_type, "vocab_size": self.vocab_size, **given}


class CalmBenchCalmConfig(CalmBenchConfig):
    model_type = "calm_bench_calm"


class CalmBenchTokenConfig(CalmBenchConfig):
    model_type = "calm_bench_token"


class CalmBenchAutoencoderConfig(CalmBenchConfig):
    model_type = "calm_bench_autoencoder"


class Wrapped(PreTrainedModel):
    """Holds a network's modules under their own names, so that its files are the network's."""

    config_class = CalmBenchConfig
    base_model_prefix = ""
    _supports_sdpa = True
    network: Any

    def __init__(self, config: CalmBenchConfig, network: nn.Module | None = None) -> None:
        super().__init__(config)
        if network is None:
            # transformers asks for empty tensors, which would also empty the tables that are computed and not stored.
            with torch.device("cpu"):
                network = self.build(config.description())
        self._frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        # Past nn.Module: as a submodule it would add its name to every tensor's.
        object.__setattr__(self, "network", network)
        for name, module in network.named_children():
            self.add_module(name, module)
        self.post_init()  # type: ignore[no-untyped-call]

    @staticmethod
    def build(description: dict[str, Any]) -> nn.Module:
        """An untrained network."""
        return from_description(description)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As transformers has it, but a folder that lacks a tensor or has another is an error.

        Raises:
            WeightsError: names the first differences.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, report = loaded
        problems = [f"missing {name}" for name in sorted(report["missing_keys"])]
        problems += [f"unexpected {name}" for name in sorted(report["unexpected_keys"])]
        problems += [f"another shape of {name}" for name in sorted(map(str, report["mismatched_keys"]))]
        if problems:
            raise WeightsError(f"{args[0] if args else 'the checkpoint'} does not fit: {listed(problems)}")
        # Loading puts new parameters in the places of the old ones, all of them trainable.
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in model._frozen)
        return (model, report) if output_loading_info else model

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # The network knows which of its parts stay in evaluation mode.
        self.network.train(mode)
        return self

    def init_weights(self) -> None:
        """Nothing: a network initialises itself when it is built, and this must not undo what was loaded."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing, as :meth:`init_weights`."""


@dataclass
class LanguageModelOutput(ModelOutput):
    """Loss where it was asked for, and the hidden states [B, n, d]; position p predicts chunk p + 1."""

    loss: Tensor | None = None
    last_hidden_state: Tensor | None = None


@dataclass
class AutoencoderOutput(ModelOutput):
    """The posterior of every chunk, each [B, n, Z]."""

    mean: Tensor | None = None
    log_std: Tensor | None = None


class CalmBenchLanguageModel(Wrapped):
    """A chunk or token model; :attr:`network` samples (:func:`calm_bench.sampling.generate.generate`)."""

    network: ChunkLanguageModel

    def forward(
        self, input_ids: Tensor, return_loss: bool = False, generator: Generator | None = None
    ) -> LanguageModelOutput:
        """ids [B, n * K], without padding."""
        loss = self.network.loss(input_ids, generator)[0] if return_loss else None
        # Without what some models hand on beside it.
        hidden = self.network.hidden_states(input_ids)[..., : self.network.config.hidden_size]
        return LanguageModelOutput(loss=loss, last_hidden_state=hidden)

    def get_input_embeddings(self) -> nn.Module:
        return self.network.backbone.embed_tokens


class CalmBenchCalm(CalmBenchLanguageModel):
    config_class = CalmBenchCalmConfig


class CalmBenchToken(CalmBenchLanguageModel):
    config_class = CalmBenchTokenConfig


class CalmBenchAutoencoder(Wrapped):
    """The chunk autoencoder; the output projection is the embedding, one parameter stored once."""

    config_class = CalmBenchAutoencoderConfig
    network: Autoencoder

    @staticmethod
    def build(description: dict[str, Any]) -> nn.Module:
        return Autoencoder.from_description(description)

    def forward(self, input_ids: Tensor) -> AutoencoderOutput:
        """ids [B, n * K] to the posterior of every chunk."""
        mean, log_std = self.network.encode(input_ids)
        return AutoencoderOutput(mean=mean, log_std=log_std)

    def get_input_embeddings(self) -> nn.Module:
        return self.network.encoder.embedding


CLASSES: tuple[tuple[type[CalmBenchConfig], type[Wrapped]], ...] = (
    (CalmBenchCalmConfig, CalmBenchCalm),
    (CalmBenchTokenConfig, CalmBenchToken),
    (CalmBenchAutoencoderConfig, CalmBenchAutoencoder),
)
for _config, _model in CLASSES:
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)


def wrap(network: Autoencoder | ChunkLanguageModel) -> Wrapped:
    """``network`` itself, sharing its parameters, behind the interface of transformers."""
    settings: dict[str, Any] = dict(network.description())
    config, model = {config.model_type: (config, model) for config, model in CLASSES}[settings.pop("model_type")]
    return model(config(**settings), network)
