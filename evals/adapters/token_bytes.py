"""The bytes that each token of a tokenizer writes, so that half a character is half a character and not U+FFFD."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.byte_letters import byte_letters
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import Tokenizer

_FALLBACK_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of every id, ``[vocab_size]``; empty for special tokens, which are no text, and for unused ids.

    Known are bytes, byte-level BPE (GPT-2's alphabet), and tokenizers that write spaces as U+2581, with single bytes
    for what they have no token for (SentencePiece). None for others.
    """
    if isinstance(tokenizer, ByteTokenizer):
        return [bytes([token]) for token in range(256)] + [b""] * (tokenizer.vocab_size - 256)
    rules = _rules(tokenizer)
    if rules is None:
        return None
    decoders = {step["type"]: step for step in _steps(rules.get("decoder"))}
    if "ByteLevel" in decoders:
        alphabet = {letter: byte for byte, letter in enumerate(byte_letters())}

        def written(token: str) -> bytes | None:
            known = [alphabet.get(character) for character in token]
            return None if None in known else bytes(byte for byte in known if byte is not None)

    elif "Metaspace" in decoders or "ByteFallback" in decoders:

        def written(token: str) -> bytes | None:
            single = _FALLBACK_BYTE.fullmatch(token)
            return bytes([int(single[1], 16)]) if single else token.replace("▁", " ").encode()

    else:
        return None
    added = {entry["id"]: entry for entry in rules.get("added_tokens", [])}
    table = [b""] * tokenizer.vocab_size
    for token, identifier in _vocabulary(rules):
        if identifier not in added and identifier < len(table):
            text = written(token)
            if text is None:
                return None
            table[identifier] = text
    for identifier, entry in added.items():
        if not entry["special"] and identifier < len(table):
            table[identifier] = entry["content"].encode()
    return table


def _rules(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The tokenizer as the library ``tokenizers`` describes it; None if it is of another kind."""
    if not isinstance(tokenizer, BpeTokenizer | HuggingFaceTokenizer):
        return None
    backend: Any = tokenizer.backend
    fast = getattr(backend, "backend_tokenizer", backend)
    if not hasattr(fast, "to_str"):
        return None
    rules: dict[str, Any] = json.loads(fast.to_str())
    return rules


def _steps(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder


def _vocabulary(rules: dict[str, Any]) -> Iterator[tuple[str, int]]:
    vocabulary = rules["model"]["vocab"]
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    else:  # Unigram: pairs of token and score
        yield from ((entry[0], index) for index, entry in enumerate(vocabulary))
