"""Any tokenizer of transformers: a hub name or a local folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.folder_signs import no_such_folder, tokenizer_fault, without_tokenizer
from calm_bench.hub_contact import hub_silence
from calm_bench.registry import did_you_mean
from calm_bench.tokens.fast_encoder import FastEncoder
from calm_bench.tokens.tokenizer import TokenizerError, with_ends, write_description

OWN_NAMES = ["bytes", "bpe"]
PROBE = (
    " Some words, DON'T they?  Two  spaces\tand\r\n\r\n 12345678 lines. ",
    "naïve NAÏVE e\u0301 ﬁ 数字 שלום \U0001f600\u200d \u00a0\u2028 \x07",
    "def f(x_1):\n        return {'a': [x_1 ** 2]}  # <tag> &amp; \\n",
    "",
)
"""Text in which tokenizers differ: case, accents, spaces, digits, scripts, control characters."""


class HuggingFaceTokenizer:
    """Wraps a transformers tokenizer: no BOS, no code from the hub, no limit on length."""

    def __init__(self, backend: Any, name: str) -> None:
        if backend.eos_token_id is None:
            raise TokenizerError(
                f"the tokenizer {name} has no EOS token, which must separate documents; "
                "choose another, or set its eos_token and save it into a folder of your own"
            )
        # Only a warning about documents longer than some model's context hangs on it.
        backend.model_max_length = int(1e30)
        self.backend = backend
        self.name = name
        self.eos_id: int = backend.eos_token_id
        vocabulary: dict[str, int] = backend.get_vocab()
        # Ids may have gaps; an embedding needs a row up to the largest.
        self.vocab_size: int = max(len(backend), max(vocabulary.values()) + 1)
        self.digest: str = _digest(backend, vocabulary)

    @classmethod
    def from_pretrained(cls, name: str, revision: str | None = None) -> HuggingFaceTokenizer:
        """The tokenizer ``name`` of the hub (at ``revision``) or in the folder ``name``.

        Raises:
            TokenizerError: there is none, it needs code of its own, or it has no EOS token.
        """
        from transformers import AutoTokenizer

        folder = Path(name).expanduser()
        if (wrong := no_such_folder(name) or tokenizer_fault(folder)) is not None:
            raise TokenizerError(f"tokens.tokenizer={name}: {wrong}")
        if _needs_sentencepiece(folder):
            raise TokenizerError(
                f"tokens.tokenizer={name} has a tokenizer.model and no tokenizer.json, and nothing to read it with: "
                "pip install sentencepiece, or bring the folder that save_pretrained writes where that is installed"
            )
        silence = None if folder.is_dir() else hub_silence()
        try:
            if folder.is_dir():
                backend = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
            else:
                # What is kept of a hub that says nothing will do.
                backend = AutoTokenizer.from_pretrained(
                    name, revision=revision, trust_remote_code=False, local_files_only=silence is not None
                )
        except Exception as error:  # transformers and the hub client raise a dozen unrelated kinds
            if folder.is_dir() and (missing := without_tokenizer(folder)) is not None:
                raise TokenizerError(f"tokens.tokenizer={name}: {missing}") from error
            said = " ".join(str(error).split()).rstrip(".")
            hint = "" if folder.is_dir() else did_you_mean(name, OWN_NAMES)
            raise TokenizerError(
                f"tokens.tokenizer={name} is not bytes, not bpe, and no Hugging Face tokenizer that can be "
                f"loaded{hint} ({silence or f'{type(error).__name__}: {said}'})"
            ) from error
        # A local path says nothing about the tokenizer and must not reach results.
        return cls(backend, folder.name if folder.is_dir() else name)

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # split_special_tokens: the text "</s>" in a document is text, not an end.
        encoded = self.backend(list(texts), add_special_tokens=False, split_special_tokens=True)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        library = self._library
        return with_ends(self.encode_batch(texts), self.eos_id) if library is None else library.encode_documents(texts)

    @cached_property
    def _library(self) -> FastEncoder | None:
        """The tokenizer of the library below transformers; None where there is none, or where transformers changes what
        goes into it or comes out."""
        if not self.backend.is_fast:
            return None
        library = FastEncoder(self.backend.backend_tokenizer.to_str(), self.eos_id)
        return library if self._gives_the_same(library) else None

    def fast_encoder_agrees(self, folder: Path) -> bool:
        """Whether a :class:`FastEncoder` of what was saved in ``folder`` gives the ids that this one gives."""
        return self.backend.is_fast and self._gives_the_same(FastEncoder.load(folder, self.eos_id))

    def _gives_the_same(self, library: FastEncoder) -> bool:
        probe = [*PROBE, f" {' a '.join(self.backend.all_special_tokens)}\n"]
        return library.encode_batch(probe) == self.encode_batch(probe)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.backend.decode(
            [int(token) for token in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def save(self, folder: str | Path) -> None:
        write_description(folder, self, "hugging_face")
        self.backend.save_pretrained(str(folder))

    @classmethod
    def load(cls, folder: str | Path) -> HuggingFaceTokenizer:
        """The tokenizer saved in ``folder``, under the name it was saved with."""
        from calm_bench.tokens.tokenizer import DESCRIPTION

        loaded = cls.from_pretrained(str(folder))
        loaded.name = json.loads((Path(folder) / DESCRIPTION).read_text())["name"]
        return loaded


def _needs_sentencepiece(folder: Path) -> bool:
    """Whether there is but a SentencePiece model and nobody to read it; transformers would ask for tiktoken."""
    is_alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return is_alone and find_spec("sentencepiece") is None


def _digest(backend: Any, vocabulary: dict[str, int]) -> str:
    """A hash over vocabulary and special tokens, and over merges and rules where the fast backend shows them."""
    content: dict[str, Any] = {"vocabulary": vocabulary, "eos": backend.eos_token}
    fast = getattr(backend, "backend_tokenizer", None)
    if fast is not None:
        rules = json.loads(fast.to_str())
        content["rules"] = {name: rules.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
