"""Parts of an experiment that were trained elsewhere: where they lie and what they cost. Nothing here imports torch.

A folder says its sizes, so an experiment that begins from one need not repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from calm_bench.frozen import Frozen
from calm_bench.json_text import parse_json_text

_SIZES = ("latent_size", "hidden_size", "intermediate_size", "num_encoder_layers", "num_decoder_layers", "rms_norm_eps")
"""What the weights of an autoencoder fix."""


class Pretrained(Frozen):
    """A trained part in a folder, to begin from. Its content and not its path enters identities."""

    folder: str | None = None
    """A model folder of this project, or a released checkpoint. Its sizes take the place of those configured."""
    training_flops: Annotated[float, Field(ge=0)] = 0.0
    """FLOPs that went into it, as the user states them; a row's training FLOPs include them."""

    @model_validator(mode="after")
    def _flops_are_of_something(self) -> Self:
        if self.folder is None and self.training_flops:
            raise ValueError("training_flops are those of a trained part: name its folder too")
        return self


NOTHING_PRETRAINED = Pretrained()


def autoencoder_settings(folder: Path) -> dict[str, Any]:
    """The settings of an ``autoencoder`` section that ``folder`` fixes: of an autoencoder, or of a CALM around one.

    Empty for a folder that tells none: a released CALM checkpoint, whose own shapes tell.
    """
    description = _description(folder)
    kind = str(description.get("model_type", ""))
    if kind.startswith("calm_bench_") and kind != "calm_bench_autoencoder":
        description = description.get("autoencoder") or {}
    own = description.get("autoencoder")
    found = own if isinstance(own, dict) else description
    # A released CALM checkpoint tells the sizes of its backbone under the same names.
    is_autoencoder = isinstance(own, dict) or "num_encoder_layers" in description
    return {name: found[name] for name in _SIZES if name in found} if is_autoencoder else {}


def model_settings(folder: Path) -> dict[str, Any]:
    """The settings of a ``model`` section that ``folder``, a language model of this project, fixes; else none."""
    described = _description(folder).get("model")
    if not isinstance(described, dict):
        return {}
    return {name: value for name, value in described.items() if name not in ("training", "pretrained")}


def folder_chunk_size(folder: Path) -> int | None:
    """K of the model in ``folder``; None where it does not tell."""
    description = _description(folder)
    for found in (description, description.get("model"), description.get("autoencoder")):
        for name in ("chunk_size", "patch_size"):
            if isinstance(found, dict) and isinstance(found.get(name), int):
                return int(found[name])
    return None


def folder_vocabulary(folder: Path) -> int | None:
    """Tokens of the vocabulary of the model in ``folder``; None where it does not tell."""
    found = _description(folder).get("vocab_size")
    return found if isinstance(found, int) else None


def with_settings_of_the_folder(data: Any, settings_of: Callable[[Path], Mapping[str, Any]]) -> Any:
    """``data`` of a section, with what the folder that it begins from fixes. A folder that is not here fixes nothing:
    what was read of it before stands in the section."""
    if not isinstance(data, dict):
        return data
    given = data.get("pretrained")
    folder = given.get("folder") if isinstance(given, dict) else getattr(given, "folder", None)
    return data if not folder else {**data, **settings_of(Path(folder).expanduser())}


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = parse_json_text((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Who builds on the folder says what is wrong with it.
        return {}
    return found if isinstance(found, dict) else {}
