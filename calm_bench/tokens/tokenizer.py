"""Text to token ids and back: the contract, the byte tokenizer, and how a tokenizer is chosen, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from calm_bench.config import Tokens
from calm_bench.fingerprint import identity

DESCRIPTION = "calm_tokenizer.json"
"""The file of a tokenizer folder that says which class reads the rest."""

LOADERS = {
    "bytes": "calm_bench.tokens.tokenizer:ByteTokenizer",
    "bpe": "calm_bench.tokens.bpe:BpeTokenizer",
    "hugging_face": "calm_bench.tokens.hugging_face:HuggingFaceTokenizer",
}


class TokensError(ValueError):
    """Tokens that cannot be made, read or served; the message says what to do."""


class TokenizerError(TokensError):
    """A tokenizer that cannot be built, or that this project cannot use."""


class Tokenizer(Protocol):
    """Maps text to ids in ``[0, vocab_size)``. Nothing is added to a text: no BOS, and EOS only by the caller."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, so the number of rows of an embedding."""
        ...

    @property
    def eos_id(self) -> int:
        """The id written once after each document."""
        ...

    @property
    def digest(self) -> str:
        """Identity of the mapping: tokenizers with equal digests give equal ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; the name of a special token inside it is ordinary text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens; bytes that are no UTF-8 become U+FFFD."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything :func:`load_tokenizer` needs into ``folder``."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8 as ids 0-255, and EOS as 256."""

    name = "bytes"
    vocab_size = 257
    eos_id = 256
    digest = identity({"tokenizer": "bytes", "eos_id": 256})

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(token) for token in ids if token != self.eos_id).decode(errors="replace")

    def save(self, folder: Path) -> None:
        write_description(folder, self, "bytes")

    @classmethod
    def load(cls, folder: Path) -> ByteTokenizer:
        return cls()


def build_tokenizer(config: Tokens, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer that ``config`` names; ``bpe`` is trained on ``documents``, the others do not read them.

    Raises:
        TokenizerError: it cannot be found, has no EOS, or cannot be trained.
    """
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    if config.tokenizer == "bpe":
        from calm_bench.tokens.bpe import BpeTokenizer

        return BpeTokenizer.train(documents, config.vocab_size)
    if (Path(config.tokenizer).expanduser() / DESCRIPTION).is_file():
        return load_tokenizer(Path(config.tokenizer).expanduser())
    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer

    return HuggingFaceTokenizer.from_pretrained(config.tokenizer, config.revision)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that ``save`` wrote into ``folder``; needs no network.

    Raises:
        TokenizerError: the folder holds none, or one that is not what was saved.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        module, _, attribute = LOADERS[description["kind"]].partition(":")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{folder} holds no tokenizer that this version reads ({path.name}: {error})") from error
    loaded: Tokenizer = getattr(import_module(module), attribute).load(folder)
    if loaded.digest != description["digest"]:
        raise TokenizerError(
            f"the tokenizer in {folder} is damaged: its digest is {loaded.digest}, "
            f"but {description['digest']} was saved; write the tokens again"
        )
    return loaded


def write_description(folder: Path, tokenizer: Tokenizer, kind: str) -> None:
    """Write the description of ``tokenizer``, making ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "kind": kind,
        "name": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "digest": tokenizer.digest,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
