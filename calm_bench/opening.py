"""Open a model's folder for use: its network and its tokenizer, this project's or a released checkpoint's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from calm_bench.file_signs import why_unreadable
from calm_bench.json_text import parse_json_text

if TYPE_CHECKING:
    from calm_bench.autoencoder import Autoencoder
    from calm_bench.lm.base import ChunkLanguageModel
    from calm_bench.tokens.tokenizer import Tokenizer

HUGGING_FACE_FILES = ("tokenizer.json", "tokenizer_config.json")


class Vocabulary(Protocol):
    """What generation needs of a tokenizer."""

    @property
    def eos_id(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class TokenIds:
    """Stands in where a checkpoint came without a tokenizer: the text of a token is its id."""

    def __init__(self, eos_id: int) -> None:
        self.eos_id = eos_id

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            TokenizerError: the text is something else than ids.
        """
        from calm_bench.tokens.tokenizer import TokenizerError

        try:
            return [int(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise TokenizerError(
                f"the model's folder has no tokenizer, so a prompt must be token ids such as '17 4 256', not {text!r}"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f" {token}" for token in ids)


def open_network(folder: Path, device: str, autoencoder: Path | Autoencoder | None = None) -> ChunkLanguageModel:
    """The network of a model folder, in evaluation mode.

    Args:
        autoencoder: the autoencoder or its folder, for a released checkpoint that carries none.

    Raises:
        WeightsError: the folder cannot be read.
    """
    from calm_bench.lm import load_language_model
    from calm_bench.pretrained import load_released_calm

    if is_own_model(folder):
        return load_language_model(folder, device)
    return load_released_calm(folder, autoencoder).to(device)


def is_own_model(folder: Path) -> bool:
    """Whether this project wrote the model folder: a language model then carries its autoencoder, if it has one.

    Raises:
        WeightsError: the folder cannot be read.
    """
    return str(_description(folder).get("model_type", "")).startswith("calm_bench_")


def open_autoencoder(folder: Path, device: str, separate: Path | None = None) -> Autoencoder:
    """The autoencoder of a model folder, in evaluation mode: the folder's own, or the one inside a CALM model.

    Args:
        separate: folder of the autoencoder of a released CALM checkpoint that carries none.

    Raises:
        WeightsError: the folder cannot be read.
        ConfigurationError: a token model, which has none.
    """
    from calm_bench.autoencoder import load_autoencoder
    from calm_bench.lm.calm import Calm
    from calm_bench.overrides import ConfigurationError
    from calm_bench.pretrained import load_released_autoencoder

    description = _description(folder)
    if description.get("model_type") == "calm_bench_autoencoder":
        return load_autoencoder(folder, device)
    if "Autoencoder" in (description.get("architectures") or ()):
        return load_released_autoencoder(folder).to(device)
    network = open_network(folder, device, separate)
    if not isinstance(network, Calm):
        raise ConfigurationError(f"{folder} holds a token model, which has no autoencoder to probe")
    return network.autoencoder


def tokenizer_setting(folder: Path) -> str | None:
    """The tokenizer of a model folder as a ``tokens.tokenizer`` setting; None for a checkpoint that brings none.

    Raises:
        TokenizerError: it cannot be read.
    """
    from calm_bench.tokens.tokenizer import DESCRIPTION, TokenizerError

    own = folder / "tokenizer" / DESCRIPTION
    if own.is_file():
        try:
            kind = parse_json_text(own.read_text(encoding="utf-8"))["kind"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenizerError(f"{own} does not describe a tokenizer ({why_unreadable(own, error)})") from None
        # Bytes are the same everywhere, so the tokens that a study wrote serve again.
        return "bytes" if kind == "bytes" else str(own.parent)
    for candidate in (folder / "tokenizer", folder):
        if any((candidate / name).is_file() for name in HUGGING_FACE_FILES):
            return str(candidate)
    return None


def open_tokenizer(setting: str) -> Tokenizer:
    """The tokenizer ``bytes``, in a folder, or of the hub.

    Raises:
        TokenizerError: there is none.
    """
    from calm_bench.config import Tokens
    from calm_bench.tokens import build_tokenizer
    from calm_bench.tokens.tokenizer import TokenizerError

    if setting == "bpe":
        raise TokenizerError("bpe is trained on a corpus: name the folder of the tokenizer instead")
    return build_tokenizer(Tokens(tokenizer=setting), ())


def open_vocabulary(folder: Path, tokenizer: str | None = None) -> Vocabulary:
    """The tokenizer named, else the model folder's, else ids alone.

    Raises:
        TokenizerError: it cannot be read, or nothing says which token ends a text.
    """
    from calm_bench.tokens.tokenizer import TokenizerError

    setting = tokenizer or tokenizer_setting(folder)
    if setting is not None:
        return open_tokenizer(setting)
    eos_id = _description(folder).get("eos_token_id")
    if not isinstance(eos_id, int):
        raise TokenizerError(
            f"{folder} has no tokenizer, and its config.json names no eos_token_id: name one (--tokenizer NAME; in "
            "Python and in model_args of lm-eval tokenizer=NAME)"
        )
    return TokenIds(eos_id)


def _description(folder: Path) -> dict[str, Any]:
    from calm_bench.weights import CONFIG_FILE, WeightsError

    path = folder / CONFIG_FILE
    try:
        return dict(parse_json_text(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise WeightsError(f"{folder} is not a model folder: it has no {CONFIG_FILE}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not a JSON object: {why_unreadable(path, error)}") from None
