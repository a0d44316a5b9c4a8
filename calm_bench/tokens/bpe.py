"""A byte-level BPE tokenizer trained on the corpus itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calm_bench.file_signs import why_unreadable
from calm_bench.tokens.tokenizer import TokenizerError, with_ends, write_description

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
FILE = "tokenizer.json"
LONGEST_WORD = 1024
"""Characters of a word that is learned from whole. Learning takes time in proportion to the square of a word's length:
a minute for 100,000 letters, hours for two million."""
PIECE = 32
"""Characters of the pieces that a longer word is learned from; no longer than the tokens that are of any use."""


class BpeTokenizer:
    """Every byte is a token, so any text can be encoded and decoded without loss; merges are learned.

    The same documents in the same order give the same vocabulary.
    """

    name = "bpe"

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # So that the text "<|endoftext|>" in a document is text, not an end.
        backend.encode_special_tokens = True
        self.backend = backend
        eos_id = backend.token_to_id(END_OF_TEXT)
        if eos_id is None:
            raise TokenizerError(f"the saved BPE tokenizer has no {END_OF_TEXT} token")
        self.eos_id: int = eos_id
        self.vocab_size: int = backend.get_vocab_size()
        self.digest: str = hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> BpeTokenizer:
        """Learn up to ``vocab_size`` tokens: EOS, 256 bytes, and merges for as long as pairs repeat.

        Words of more than ``LONGEST_WORD`` characters, such as encoded data or a run of spaces, are learned from in
        pieces, and encoded whole like others.

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
        split = backend.pre_tokenizer.pre_tokenize_str
        backend.train_from_iterator((part for text in documents for part in _learnable(text, split)), trainer)
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        return with_ends(self.encode_batch(texts), self.eos_id)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.backend.decode([int(token) for token in ids], skip_special_tokens=True)
        return text

    def save(self, folder: str | Path) -> None:
        write_description(folder, self, "bpe")
        self.backend.save(str(Path(folder) / FILE))

    @classmethod
    def load(cls, folder: str | Path) -> BpeTokenizer:
        """The tokenizer saved in ``folder``.

        Raises:
            TokenizerError: its file is missing or damaged.
        """
        from tokenizers import Tokenizer

        path = Path(folder) / FILE
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises nothing more specific
            raise TokenizerError(f"{path} is no readable tokenizer: {why_unreadable(path, error)}") from error


_LONG_RUN = re.compile(rf"[\S\x1c-\x1f]{{{LONGEST_WORD},}}|\s{{{LONGEST_WORD},}}")
"""What a long word lies in: white space is a word too. Four characters are space to Python alone."""


def _learnable(text: str, split: Callable[[str], list[tuple[str, tuple[int, int]]]]) -> Iterator[str]:
    """``text`` in parts that have the same words, except that words of more than ``LONGEST_WORD`` are in pieces.

    Args:
        split: words of a text with their begin and end in it, as the tokenizer sees them.
    """
    if not _LONG_RUN.search(text):
        yield text
        return
    done = 0
    for _, (begin, end) in split(text):
        if end - begin > LONGEST_WORD:
            yield text[done:begin]
            yield from (text[at : min(end, at + PIECE)] for at in range(begin, end, PIECE))
            done = end
    yield text[done:]
