"""Our models as checkpoints that the reference implementation reads; :mod:`calm_bench.pretrained` is the way back.

What the reference fixes in its code or cannot say is returned as notes, so that nothing is lost in silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from calm_bench.atomic import write_bytes, write_with
from calm_bench.autoencoder import Autoencoder
from calm_bench.errors import RunError
from calm_bench.head_config import DiffusionHead, EnergyHead, FlowHead
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.calm import Calm
from calm_bench.pretrained import CONSTANTS
from calm_bench.reference_names import (
    ARCHITECTURES,
    EMBEDDING,
    HEAD,
    HEAD_AGAIN,
    INNER,
    OUTPUT,
    autoencoder_names,
    calm_names,
)
from calm_bench.tensor_files import PICKLE, SAFETENSORS
from calm_bench.weights import CONFIG_FILE

AUTOENCODER_FOLDER = "autoencoder"
"""Where a CALM export puts its autoencoder once more, inside its own folder: the reference insists on reading it."""
NUM_TARGETS = 100
TIME_FEATURES = 256
MAX_POSITIONS = 1 << 17
"""Positions are rotary and need no table, so this only keeps the reference from complaining."""

Format = Literal["bin", "safetensors"]


class ExportError(RunError, ValueError):
    """A model that the reference implementation has no place for; the message says why."""


def export_reference(
    model: Autoencoder | ChunkLanguageModel,
    folder: str | Path,
    eos_id: int | None = None,
    pad_id: int | None = None,
    format: Format = "bin",
    ae_path: str | None = None,
) -> list[str]:
    """Write ``config.json`` and the weights of an autoencoder or a CALM model as the reference does.

    Args:
        eos_id: the token that ends a text, for the configuration.
        pad_id: the reference cannot generate without one, and drops it from all that it generates; unset means the
            same as ``eos_id``.
        format: ``bin`` is what the reference itself writes. In ``safetensors`` tied tensors are stored under all their
            names, because the reference leaves a name that it does not find uninitialised.
        ae_path: what a CALM model's configuration says about its autoencoder's folder, which the reference reads before
            it replaces it by the one in the checkpoint; unset means the absolute path of ``folder / "autoencoder"``,
            which is written too.

    Returns:
        Notes on what the reference will do differently.

    Raises:
        ExportError: the reference has no such model.
    """
    folder = Path(folder)
    tokens = {"bos_token_id": None, "eos_token_id": eos_id, "pad_token_id": eos_id if pad_id is None else pad_id}
    if isinstance(model, Autoencoder):
        tensors, notes = autoencoder_tensors(model), _autoencoder_notes(model)
        _write(folder, _autoencoder_config(model) | tokens, tensors, format)
        return notes
    if not isinstance(model, Calm):
        raise ExportError(
            "the reference's token model is a plain Llama; only autoencoders and CALM models are exported"
        )
    config, notes = _calm_config(model)
    inner = folder / AUTOENCODER_FOLDER
    config["ae_path"] = str(inner.absolute()) if ae_path is None else ae_path
    if ae_path is None:
        notes = export_reference(model.autoencoder, inner, eos_id, pad_id, format) + notes
    else:
        notes = _autoencoder_notes(model.autoencoder) + notes
    if tokens["pad_token_id"] is None:
        notes.append("neither eos_id nor pad_id is given: the reference cannot generate without a pad_token_id")
    _write(folder, config | tokens, calm_tensors(model), format)
    return notes


def autoencoder_tensors(model: Autoencoder) -> dict[str, Tensor]:
    """The tensors under the reference's names; tied names share one tensor.

    Raises:
        ExportError: the reference has no such autoencoder.
    """
    if model.context_size:
        raise ExportError("the reference's autoencoder reads every chunk by itself, this one the chunk before too")
    state = model.state_dict()
    tensors = {theirs: state[ours] for ours, theirs in autoencoder_names(model).items()}
    return tensors | {OUTPUT: tensors[EMBEDDING]}


def calm_tensors(model: Calm) -> dict[str, Tensor]:
    """As :func:`autoencoder_tensors`, the model's autoencoder included."""
    state = model.state_dict()
    tensors = {theirs: state[ours] for ours, theirs in calm_names(model).items()}
    again = {HEAD_AGAIN + n.removeprefix(HEAD): tensor for n, tensor in tensors.items() if n.startswith(HEAD)}
    inner = {INNER + name: tensor for name, tensor in autoencoder_tensors(model.autoencoder).items()}
    return inner | tensors | again


def _autoencoder_config(model: Autoencoder) -> dict[str, Any]:
    config = model.config
    return {
        **{name: CONSTANTS[name] for name in ("hidden_act", "mlp_bias")},
        "ae_dropout": config.token_dropout,
        "architectures": ["Autoencoder"],
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "kl_clamp": config.kl_clamp,
        "kl_weight": config.kl_weight,
        "latent_size": model.latent_size,
        "max_position_embeddings": MAX_POSITIONS,
        "num_decoder_layers": config.num_decoder_layers,
        "num_encoder_layers": config.num_encoder_layers,
        "patch_size": model.chunk_size,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": False,
        "torch_dtype": _dtype(model),
        "vocab_size": model.vocab_size,
    }


def _autoencoder_notes(model: Autoencoder) -> list[str]:
    config, notes = model.config, []
    if config.dropped_token == "mask":
        notes.append(
            "the mask embedding is left out: encoding and decoding are unchanged, but where the reference trains the "
            "autoencoder further, a dropped token becomes id 0, an ordinary token"
        )
    elif config.dropped_token != 0:
        notes.append(f"a dropped token becomes id 0 in the reference, here {config.dropped_token}")
    if config.latent_dropout != config.token_dropout:
        notes.append(f"the reference has one dropout: {config.token_dropout}, here {config.latent_dropout} of latents")
    return notes


def _calm_config(model: Calm) -> tuple[dict[str, Any], list[str]]:
    config, head = model.config, model.config.head
    notes: list[str] = []
    if not isinstance(head, (EnergyHead, DiffusionHead, FlowHead)):
        raise ExportError(f"the reference has no head {head.kind}, only {', '.join(ARCHITECTURES.values())}")
    if model.document_end is not None:
        raise ExportError("the reference reads across documents, this model inside them (model.document_masking)")
    settings: dict[str, Any] = {"num_mlp_layers": head.num_blocks, "num_samples": head.num_samples}
    if head.width not in (None, config.hidden_size):
        raise ExportError(f"the reference's heads are as wide as the backbone, {config.hidden_size}, not {head.width}")
    if isinstance(head, EnergyHead):
        settings |= {"noise_size": head.noise_size, "beta": head.alpha}
        if head.num_targets != NUM_TARGETS:
            notes.append(f"the reference trains with {NUM_TARGETS} target draws, here {head.num_targets}")
    else:
        if head.time_features != TIME_FEATURES:
            raise ExportError(f"the reference's heads have {TIME_FEATURES} time features, not {head.time_features}")
        if isinstance(head, DiffusionHead) and head.objective != "noise":
            raise ExportError(f"the reference's diffusion head predicts the noise, not the {head.objective}")
        if isinstance(head, FlowHead) and head.skip:
            raise ExportError("the reference's flow network predicts the whole velocity, without a linear part")
        if isinstance(head, FlowHead) and head.time_levels != 1000:
            notes.append(f"the reference's flow reads 1000 levels of time, here {head.time_levels or 'any time'}")
        notes.append("the reference samples with solver and steps of its own")
    kinds = {kind: architecture for architecture, kind in ARCHITECTURES.items()}
    return {
        **CONSTANTS,
        **settings,
        "architectures": [kinds[head.kind]],
        "attention_dropout": 0.0,
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "latent_size": model.autoencoder.latent_size,
        "max_position_embeddings": MAX_POSITIONS,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.key_value_heads,
        "patch_size": config.chunk_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": _dtype(model),
        "use_cache": True,
        "vocab_size": model.vocab_size,
    }, notes


def _dtype(model: torch.nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], format: Format) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if format == "bin":
        # One storage for tied names, as the reference writes them.
        copies: dict[int, Tensor] = {}
        shared = {n: copies.setdefault(t.data_ptr(), t.detach().cpu().contiguous()) for n, t in tensors.items()}
        write_with(folder / PICKLE, lambda path: torch.save(shared, path))
    else:
        apart = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        write_with(folder / SAFETENSORS, lambda path: save_file(apart, path, metadata={"format": "pt"}))
    write_bytes(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True).encode())
