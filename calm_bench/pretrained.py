"""Checkpoints of the reference implementation (the released ones too) as models of this project.

A released folder holds ``config.json`` and either pickled ``pytorch_model*.bin`` or safetensors. Pickles are read with
torch's tensors-only unpickler: one that carries anything else is refused by name. ``ae_path`` of the configuration
names a folder on the authors' server and is ignored; a CALM checkpoint carries its autoencoder.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.calm import Calm
from calm_bench.weights import CONFIG_FILE, WeightsError, fill

AUTOENCODER_NAMES = (
    (r"^encoder\.embed_tokens\.", "encoder.embedding."),
    (r"^encoder\.squeeze_layer\.", "encoder.squeeze."),
    (r"^encoder\.hidden_to_latent\.", "encoder.to_latent."),
    (r"^decoder\.latent_to_hidden\.", "decoder.from_latent."),
    (r"^decoder\.expand_layer\.", "decoder.expand."),
    (r"\.mlp\.", "."),
    (r"\.layernorm\.", ".norm."),
)
CALM_NAMES = (
    (r"^transformer\.", "backbone."),
    (r"^embed_proj\.", "input_projection."),
    (r"^mlp_generator\.", "head."),
    (r"^head\.noise_embd\.", "head.noise_embedding."),
    (r"^head\.hidden_embd\.", "head.hidden_embedding."),
    (r"^head\.norm_(noise|hidden)\.", r"head.\1_norm."),
    (r"^head\.mlp_blocks\.", "head.blocks."),
    (r"^head\.final_layer\.", "head.final."),
    (r"^(head\..*)\.in_ln\.", r"\1.norm."),
    (r"^(head\.blocks\.\d+)\.linears\.0\.", r"\1.in_proj."),
    (r"^(head\.blocks\.\d+)\.linears\.2\.", r"\1.mid_proj."),
    (r"^(head\.blocks\.\d+)\.linears\.4\.", r"\1.out_proj."),
    (r"^head\.final\.linears\.0\.", "head.final.in_proj."),
    (r"^head\.final\.linears\.2\.", "head.final.out_proj."),
)


def load_released_autoencoder(folder: Path) -> Autoencoder:
    """Read a reference autoencoder, in evaluation mode.

    Raises:
        WeightsError: a file is missing, carries code, or keys or shapes differ.
    """
    config, tensors = _config(folder), _tensors(folder)
    return _autoencoder(config, tensors, folder)


def load_released_calm(folder: Path, autoencoder_folder: Path | None = None) -> Calm:
    """Read a reference CALM model with the energy head, in evaluation mode.

    Args:
        autoencoder_folder: a separate autoencoder for checkpoints that do not carry one.

    Raises:
        WeightsError: a file is missing, carries code, another head, or keys or shapes differ.
    """
    config, tensors = _config(folder), _tensors(folder)
    architecture = (config.get("architectures") or ["EnergyTransformer"])[0]
    if architecture != "EnergyTransformer":
        raise WeightsError(f"{folder} holds a {architecture}; only EnergyTransformer can be read so far")
    inner = {name.removeprefix("ae_model."): t for name, t in tensors.items() if name.startswith("ae_model.")}
    if inner:
        autoencoder = _autoencoder(_inferred_autoencoder_config(config, inner), inner, folder)
    elif autoencoder_folder is not None:
        autoencoder = load_released_autoencoder(autoencoder_folder)
    else:
        raise WeightsError(f"{folder} carries no autoencoder: name its folder")
    model_config = LanguageModelConfig.model_validate(
        {
            "kind": "calm",
            "chunk_size": config["patch_size"],
            "hidden_size": config["hidden_size"],
            "intermediate_size": config["intermediate_size"],
            "num_layers": config["num_hidden_layers"],
            "num_attention_heads": config["num_attention_heads"],
            "num_key_value_heads": config["num_key_value_heads"],
            "head": {
                "kind": "energy",
                "num_blocks": config["num_mlp_layers"],
                "noise_size": config["noise_size"],
                "num_samples": config["num_samples"],
                "alpha": config.get("beta", 1.0),
            },
            "training": {"num_steps": 1},
        }
    )
    own = {n: t for n, t in tensors.items() if not n.startswith(("ae_model.", "generative_head."))}
    model = Calm(model_config, autoencoder)
    fill(
        model, _renamed(own, CALM_NAMES) | {f"autoencoder.{n}": t for n, t in autoencoder.state_dict().items()}, folder
    )
    return model.eval()


def _autoencoder(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Autoencoder:
    description = AutoencoderConfig.model_validate(
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
        }
    )
    model = Autoencoder(description, config["patch_size"], config["vocab_size"])
    # The output projection is the embedding; safetensors copies of the reference may lack its second name.
    tensors = {name: tensor for name, tensor in tensors.items() if name != "decoder.lm_head_weight"}
    tensors = _renamed(tensors, AUTOENCODER_NAMES)
    for side in ("encoder", "decoder"):
        tensors = _split_stages(tensors, side, config[f"num_{side}_layers"] // 2)
    fill(model, tensors, folder)
    return model.eval()


def _split_stages(tensors: dict[str, Tensor], side: str, half: int) -> dict[str, Tensor]:
    """The reference numbers the blocks before and after squeeze or expand in one list."""
    first, second = ("token_blocks", "chunk_blocks") if side == "encoder" else ("chunk_blocks", "token_blocks")

    def rename(match: re.Match[str]) -> str:
        index = int(match[1])
        return f"{side}.{first}.{index}." if index < half else f"{side}.{second}.{index - half}."

    return {re.sub(rf"^{side}\.{side}_layers\.(\d+)\.", rename, name): tensor for name, tensor in tensors.items()}


def _inferred_autoencoder_config(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """A CALM checkpoint's configuration says nothing of its autoencoder's sizes; the shapes do."""

    def layers(side: str) -> int:
        found = [re.match(rf"{side}\.{side}_layers\.(\d+)\.", name) for name in tensors]
        return 1 + max(int(match[1]) for match in found if match)

    gate = tensors["encoder.encoder_layers.0.mlp.gate_proj.weight"]
    return {
        "latent_size": tensors["decoder.latent_to_hidden.weight"].shape[1],
        "hidden_size": gate.shape[1],
        "intermediate_size": gate.shape[0],
        "num_encoder_layers": layers("encoder"),
        "num_decoder_layers": layers("decoder"),
        "patch_size": config["patch_size"],
        "vocab_size": tensors["encoder.embed_tokens.weight"].shape[0],
    }


def _renamed(tensors: dict[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no {CONFIG_FILE}") from None


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's weight files; only tensors are ever unpickled."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise WeightsError(f"{folder} has neither model*.safetensors nor pytorch_model*.bin")
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            tensors |= load_file(file)
            continue
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(f"{file} carries more than tensors and is not loaded: {error}") from None
        tensors |= loaded
    return tensors
