"""What the reference implementation calls our tensors: one table, read forwards to export and backwards to load."""

from __future__ import annotations

import re

from calm_bench.autoencoder import Autoencoder
from calm_bench.lm.calm import Calm

ARCHITECTURES = {"EnergyTransformer": "energy", "DiffusionTransformer": "diffusion", "FlowTransformer": "flow"}
"""The reference's class names and the heads that they have here."""

EMBEDDING = "encoder.embed_tokens.weight"
OUTPUT = "decoder.lm_head_weight"
"""The second name of the embedding, which the reference ties to the first."""
INNER = "ae_model."
"""Prefix of the autoencoder that a CALM checkpoint carries."""
HEAD = "mlp_generator."
HEAD_AGAIN = "generative_head."
"""The two prefixes under which the reference stores an energy head."""

_AUTOENCODER = (
    (r"^encoder\.embedding\.", "encoder.embed_tokens."),
    (r"^encoder\.squeeze\.", "encoder.squeeze_layer."),
    (r"^encoder\.to_latent\.", "encoder.hidden_to_latent."),
    (r"^decoder\.from_latent\.", "decoder.latent_to_hidden."),
    (r"^decoder\.expand\.", "decoder.expand_layer."),
    (r"_blocks\.(\d+)\.norm\.", r"_blocks.\1.layernorm."),
    (r"_blocks\.(\d+)\.(gate|up|down)_proj\.", r"_blocks.\1.mlp.\2_proj."),
)
_CALM = (
    (r"^backbone\.", "transformer."),
    (r"^input_projection\.", "embed_proj."),
)
_ENERGY = (
    (r"^head\.(noise|hidden)_embedding\.", r"head.\1_embd."),
    (r"^head\.(noise|hidden)_norm\.", r"head.norm_\1."),
    (r"^head\.blocks\.", "head.mlp_blocks."),
    (r"^head\.final\.", "head.final_layer."),
    (r"^(head\..*)\.norm\.", r"\1.in_ln."),
    (r"^(head\..*)\.in_proj\.", r"\1.linears.0."),
    (r"^(head\..*)\.mid_proj\.", r"\1.linears.2."),
    (r"^(head\.mlp_blocks\..*)\.out_proj\.", r"\1.linears.4."),
    (r"^(head\.final_layer)\.out_proj\.", r"\1.linears.2."),
    (r"^head\.", HEAD),
)
_NETWORK = (
    (r"^head\.network\.times\.0\.", "head.network.time_embed."),
    (r"^head\.network\.condition_embedding\.", "head.network.cond_embed."),
    (r"^head\.network\.latent_embedding\.", "head.network.input_proj."),
    (r"^head\.network\.blocks\.", "head.network.res_blocks."),
    (r"^head\.network\.final\.out_proj\.", "head.network.final_layer.linear."),
    (r"^head\.network\.final\.", "head.network.final_layer."),
    (r"^(head\..*)\.norm\.", r"\1.in_ln."),
    (r"^(head\..*)\.in_proj\.", r"\1.mlp.0."),
    (r"^(head\..*)\.out_proj\.", r"\1.mlp.2."),
    (r"^(head\..*)\.modulation\.", r"\1.adaLN_modulation.1."),
    (r"^head\.network\.", f"{HEAD_AGAIN}net."),
)
_HEADS = {"energy": _ENERGY, "diffusion": _NETWORK, "flow": _NETWORK}


def autoencoder_names(model: Autoencoder) -> dict[str, str]:
    """Our names and the reference's, of every tensor but a mask embedding, which the reference does not have."""
    # The reference numbers the blocks before and after squeeze or expand in one list.
    offsets = {
        ("encoder", "token"): 0,
        ("encoder", "chunk"): len(model.encoder.token_blocks),
        ("decoder", "chunk"): 0,
        ("decoder", "token"): len(model.decoder.chunk_blocks),
    }

    def numbered(match: re.Match[str]) -> str:
        side, stage, index = match.groups()
        return f"{side}.{side}_layers.{int(index) + offsets[side, stage]}."

    names = {name: _translated(name, _AUTOENCODER) for name in model.state_dict() if name != "encoder.mask_embedding"}
    pattern = r"^(encoder|decoder)\.(token|chunk)_blocks\.(\d+)\."
    return {ours: re.sub(pattern, numbered, theirs) for ours, theirs in names.items()}


def calm_names(model: Calm) -> dict[str, str]:
    """Our names and the reference's, of every tensor outside the autoencoder.

    Raises:
        KeyError: the reference does not have the model's head.
    """
    table = _CALM + _HEADS[model.config.head.kind]
    return {name: _translated(name, table) for name in model.state_dict() if not name.startswith("autoencoder.")}


def _translated(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
