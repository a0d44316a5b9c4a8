"""Checkpoints of the reference implementation (the released ones too) as models of this project.

A released folder holds ``config.json`` and its weights as pickled ``pytorch_model*.bin`` or safetensors, in one file or
several. Pickles are read with torch's tensors-only unpickler: one that carries anything else is refused by name.
``ae_path`` of the configuration names a folder on the authors' server and is ignored; a CALM checkpoint carries its
autoencoder. :mod:`calm_bench.export` writes such folders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import RMS_NORM_EPS, ROPE_THETA
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.file_signs import why_unreadable
from calm_bench.json_text import parse_json_text
from calm_bench.lm.calm import Calm
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
from calm_bench.tensor_files import WeightsError, listed, read_tensors
from calm_bench.weights import CONFIG_FILE, fill

Description = TypeVar("Description", bound=BaseModel)

CONSTANTS: dict[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "mlp_bias": False,
    "rope_scaling": None,
}
"""Settings of the reference that are fixed here; a checkpoint with others would load and compute something else."""

AUTOENCODER_SIZES = (
    "hidden_size",
    "intermediate_size",
    "latent_size",
    "num_decoder_layers",
    "num_encoder_layers",
    "patch_size",
    "vocab_size",
)
CALM_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_mlp_layers",
    "num_samples",
    "patch_size",
)


def load_released_autoencoder(folder: str | Path) -> Autoencoder:
    """Read a reference autoencoder, in evaluation mode.

    Raises:
        WeightsError: a file is missing, carries code, or keys or shapes differ.
    """
    folder = Path(folder)
    return _autoencoder(_config(folder), read_tensors(folder, pickles=True), folder)


def load_released_calm(
    folder: str | Path,
    autoencoder_folder: str | Path | Autoencoder | None = None,
    head: Mapping[str, Any] | None = None,
) -> Calm:
    """Read a reference CALM model with an energy, diffusion or flow head, in evaluation mode.

    Args:
        autoencoder_folder: a separate autoencoder or its folder, for a checkpoint that carries none.
        head: settings of the head to change, such as ``{"num_steps": 4}`` for a flow. A diffusion model samples as the
            reference does unless ``{"start": 0.05}`` makes it begin where the signal can be told from the noise.

    Raises:
        WeightsError: a file is missing, carries code, a head unknown here, or keys or shapes differ.
    """
    folder = Path(folder)
    config, tensors = _config(folder), read_tensors(folder, pickles=True)
    architecture = (config.get("architectures") or ["EnergyTransformer"])[0]
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"{folder} holds a {architecture}; those that can be read are {', '.join(ARCHITECTURES)}")
    kind = ARCHITECTURES[architecture]
    _check(config, folder, (*CALM_SIZES, *(["noise_size"] if kind == "energy" else [])))
    inner = {name.removeprefix(INNER): tensor for name, tensor in tensors.items() if name.startswith(INNER)}
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(INNER)}
    if inner:
        autoencoder = _autoencoder(_inferred_autoencoder_config(config, inner, folder), inner, folder)
    elif isinstance(autoencoder_folder, Autoencoder):
        autoencoder = autoencoder_folder
        _check_fit(config, autoencoder, folder, "that of autoencoder.pretrained.folder")
    elif autoencoder_folder is not None:
        autoencoder = load_released_autoencoder(autoencoder_folder)
        _check_fit(config, autoencoder, folder, Path(autoencoder_folder))
    else:
        raise WeightsError(
            f"{folder} carries no autoencoder: name its folder (--autoencoder FOLDER; of lm-eval and in Python "
            "autoencoder=FOLDER)"
        )
    model_config = _validated(
        LanguageModelConfig,
        {
            "kind": "calm",
            "chunk_size": config["patch_size"],
            "hidden_size": config["hidden_size"],
            "intermediate_size": config["intermediate_size"],
            "num_layers": config["num_hidden_layers"],
            "num_attention_heads": config["num_attention_heads"],
            "num_key_value_heads": config.get("num_key_value_heads"),
            "rope_theta": _rope_theta(config, folder),
            "rms_norm_eps": config.get("rms_norm_eps", RMS_NORM_EPS),
            "head": {**_head(kind, config), **(head or {})},
            "training": {"num_steps": 1},
        },
        folder,
    )
    if kind == "energy":
        again = {name: HEAD + name.removeprefix(HEAD_AGAIN) for name in own if name.startswith(HEAD_AGAIN)}
        own = _untied(own, again, folder)
    model = Calm(model_config, autoencoder)
    fill(model, own, folder, calm_names(model))
    return model.eval()


def _head(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The head's settings; what the reference does not store is what its code has."""
    shared = {"kind": kind, "num_blocks": config["num_mlp_layers"], "num_samples": config["num_samples"]}
    if kind == "energy":
        return {**shared, "noise_size": config["noise_size"], "alpha": config.get("beta", 1.0)}
    shared["time_features"] = 256
    if kind == "diffusion":
        return {**shared, "objective": "noise", "sampler": "ancestral", "num_steps": 100}
    return {**shared, "solver": "midpoint", "num_steps": 10, "time_levels": 1000, "skip": False}


def _rope_theta(config: dict[str, Any], folder: Path) -> float:
    """Under its own name, or where transformers 5 writes it."""
    parameters = config.get("rope_parameters") or {}
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise WeightsError(
            f"{folder / CONFIG_FILE} cannot be used: rope_type is {kind!r}, but the models here have none"
        )
    theta: float = parameters.get("rope_theta", config.get("rope_theta", ROPE_THETA))
    return theta


def _autoencoder(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Autoencoder:
    _check(config, folder, AUTOENCODER_SIZES)
    description = _validated(
        AutoencoderConfig,
        {
            "latent_size": config["latent_size"],
            "hidden_size": config["hidden_size"],
            "intermediate_size": config["intermediate_size"],
            "num_encoder_layers": config["num_encoder_layers"],
            "num_decoder_layers": config["num_decoder_layers"],
            "kl_weight": config.get("kl_weight", 1e-3),
            "kl_clamp": config.get("kl_clamp", 0.5),
            "token_dropout": config.get("ae_dropout", 0.15),
            "latent_dropout": config.get("ae_dropout", 0.15),
            "dropped_token": 0,
            "rms_norm_eps": config.get("rms_norm_eps", RMS_NORM_EPS),
        },
        folder,
    )
    model = Autoencoder(description, config["patch_size"], config["vocab_size"])
    fill(model, _untied(tensors, {OUTPUT: EMBEDDING}, folder), folder, autoencoder_names(model))
    return model.eval()


def _inferred_autoencoder_config(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    """A CALM checkpoint's configuration says nothing of its autoencoder's sizes; the shapes do.

    Nothing says its ``rms_norm_eps``, so it is taken to be the reference's, whatever the model's is.
    """

    def shape(name: str) -> torch.Size:
        if name not in tensors or tensors[name].dim() != 2:
            raise WeightsError(f"{folder} does not fit: missing the matrix {INNER}{name}")
        return tensors[name].shape

    def layers(side: str) -> int:
        found = [re.match(rf"{side}\.{side}_layers\.(\d+)\.", name) for name in tensors]
        return 1 + max((int(match[1]) for match in found if match), default=0)

    intermediate_size, hidden_size = shape("encoder.encoder_layers.0.mlp.gate_proj.weight")
    return {
        "latent_size": config.get("latent_size", shape("decoder.latent_to_hidden.weight")[1]),
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_encoder_layers": layers("encoder"),
        "num_decoder_layers": layers("decoder"),
        "patch_size": config["patch_size"],
        "vocab_size": shape(EMBEDDING if EMBEDDING in tensors else OUTPUT)[0],
    }


def _untied(tensors: dict[str, Tensor], ties: Mapping[str, str], folder: Path) -> dict[str, Tensor]:
    """``tensors`` without the second names in ``ties`` (second name to first), which a copy may lack, or alone have."""
    different = [
        f"{second} differs from {first}, to which the reference ties it"
        for second, first in ties.items()
        if second in tensors and first in tensors and not torch.equal(tensors[second], tensors[first])
    ]
    if different:
        raise WeightsError(f"{folder} does not fit: {listed(different)}")
    moved = {first: tensors[second] for second, first in ties.items() if second in tensors}
    return {name: tensor for name, tensor in tensors.items() if name not in ties} | moved


def _check_fit(config: dict[str, Any], autoencoder: Autoencoder, folder: Path, named: Path | str) -> None:
    found = {
        "latent_size": autoencoder.latent_size,
        "patch_size": autoencoder.chunk_size,
        "vocab_size": autoencoder.vocab_size,
    }
    problems = [
        f"{name} is {value}, expected {config[name]}"
        for name, value in found.items()
        if config.get(name, value) != value
    ]
    if problems:
        raise WeightsError(f"the autoencoder {named} does not fit {folder}: {listed(problems)}")


def _check(config: dict[str, Any], folder: Path, needed: tuple[str, ...]) -> None:
    problems = [f"{name} is missing" for name in needed if name not in config]
    problems += [
        f"{name} is {config[name]!r}, but the models here have {value!r}"
        for name, value in CONSTANTS.items()
        if config.get(name, value) != value
    ]
    if problems:
        raise WeightsError(f"{folder / CONFIG_FILE} cannot be used: {listed(problems)}")


def _validated(kind: type[Description], settings: dict[str, Any], folder: Path) -> Description:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        raise WeightsError(f"{folder / CONFIG_FILE} cannot be used: {listed(problems)}") from None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        return dict(parse_json_text(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no {CONFIG_FILE}") from None
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} is not a JSON object: {why_unreadable(path, error)}") from None
