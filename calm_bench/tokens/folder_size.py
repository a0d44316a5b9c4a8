"""The vocabulary of a tokenizer in a folder, read from its files without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calm_bench.tokens.tokenizer import DESCRIPTION

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def folder_vocab_size(folder: Path) -> int | None:
    """One more than the largest id, as :attr:`Tokenizer.vocab_size`; None where the files do not tell.

    Known are tokenizers that this project wrote, and those of transformers with a ``tokenizer.json``. Tokens that
    ``tokenizer_config.json`` adds to it count too: transformers gives them the next ids.
    """
    try:
        if (folder / DESCRIPTION).is_file():
            return int(_read(folder / DESCRIPTION)["vocab_size"])
        if not (folder / "tokenizer.json").is_file():
            return None
        rules = _read(folder / "tokenizer.json")
        ids = dict(_vocabulary(rules["model"]["vocab"]))
        ids |= {entry["content"]: int(entry["id"]) for entry in rules.get("added_tokens") or ()}
        ids |= _added(folder)
        for token in _special(folder):
            ids.setdefault(token, max(ids.values(), default=-1) + 1)
        return max(len(ids), max(ids.values()) + 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _vocabulary(vocabulary: Any) -> Iterator[tuple[str, int]]:
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    else:  # Unigram: pairs of token and score
        yield from ((entry[0], index) for index, entry in enumerate(vocabulary))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return _read(path) if path.is_file() else {}


def _added(folder: Path) -> dict[str, int]:
    entries = (_config(folder).get("added_tokens_decoder") or {}).items()
    return {entry["content"]: int(number) for number, entry in entries}


def _special(folder: Path) -> Iterator[str]:
    config = _config(folder)
    for name in SPECIAL:
        token = config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content:
            yield content
