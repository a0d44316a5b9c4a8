"""A byte-level BPE tokenizer trained on the corpus itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.tokens.tokenizer import TokenizerError, write_description

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
FILE = "tokenizer.json"


class BpeTokenizer:
    """Every byte is a token, so any text can be encoded and decoded without loss; merges are learned.

    The same documents in the same order give the same vocabulary.
    """

    name = "bpe"

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # So that the text "<|endoftext|>" in a document is text, not an end.
        backend.encode_special_tokens = True
        self._backend = backend
        eos_id = backend.token_to_id(END_OF_TEXT)
        if eos_id is None:
            raise TokenizerError(f"the saved BPE tokenizer has no {END_OF_TEXT} token")
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size()
        self.digest: str = hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> BpeTokenizer:
        """Learn up to ``vocab_size`` tokens: EOS, 256 bytes, and merges for as long as pairs repeat.

        Raises:
            TokenizerError: ``vocab_size`` does not hold EOS and all bytes.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        if vocab_size < len(alphabet) + 1:
            raise TokenizerError(f"tokens.vocab_size {vocab_size} is below {len(alphabet) + 1}, EOS and all bytes")
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator(documents, trainer)
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode([int(token) for token in ids], skip_special_tokens=True)
        return text

    def save(self, folder: Path) -> None:
        write_description(folder, self, "bpe")
        self._backend.save(str(folder / FILE))

    @classmethod
    def load(cls, folder: Path) -> BpeTokenizer:
        """The tokenizer saved in ``folder``.

        Raises:
            TokenizerError: its file is missing or damaged.
        """
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_file(str(folder / FILE)))
        except Exception as error:  # the library raises nothing more specific
            raise TokenizerError(f"{folder / FILE} is no readable tokenizer: {error}") from error
