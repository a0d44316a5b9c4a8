"""The vocabulary of a tokenizer in a folder: read from its files, or of the loaded tokenizer where they do not tell."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.fingerprint import FileVersion, file_version
from calm_bench.json_text import parse_json_text
from calm_bench.tokens.tokenizer import DESCRIPTION

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that add no tokens of their own: a T5 has a hundred more than its files name."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def folder_vocab_size(folder: Path) -> int | None:
    """One more than the largest id, as :attr:`Tokenizer.vocab_size`; None where the files do not tell.

    Known are tokenizers that this project wrote, and those of transformers with a ``tokenizer.json`` and a class that
    adds nothing by itself. Tokens that the files beside it add count too: they get the next ids, whatever number stands
    beside them.
    """
    try:
        if (folder / DESCRIPTION).is_file():
            return int(_read(folder / DESCRIPTION)["vocab_size"])
        if not (folder / "tokenizer.json").is_file() or not _is_plain(folder):
            return None
        rules = _read(folder / "tokenizer.json")
        vocabulary = dict(_vocabulary(rules["model"]["vocab"]))
        added = {entry["content"] for entry in rules.get("added_tokens") or ()} | set(_added(folder))
        return max(max(vocabulary.values(), default=-1) + 1, len(vocabulary | dict.fromkeys(added)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def loaded_vocab_size(folder: Path) -> int:
    """The same of any tokenizer, which is loaded for it; once in a process for files as they are.

    Raises:
        TokenizerError: there is none that can be used; names the folder and what to do.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _loaded_vocab_size(folder, tuple((path.name, file_version(path.stat())) for path in files))


@lru_cache(maxsize=16)
def _loaded_vocab_size(folder: Path, files: tuple[tuple[str, FileVersion], ...]) -> int:
    from calm_bench.config import Tokens
    from calm_bench.tokens.choose_tokenizer import build_tokenizer

    return build_tokenizer(Tokens(tokenizer=str(folder)), ()).vocab_size


def _is_plain(folder: Path) -> bool:
    """Whether the files tell all tokens. Where no class is named, that of the model's kind counts."""
    settings = _settings(folder / "tokenizer_config.json")
    if "model_specific_special_tokens" in settings:
        return False
    named = settings.get("tokenizer_class")
    return named in PLAIN_CLASSES or (named is None and not (folder / "config.json").is_file())


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = parse_json_text(path.read_text(encoding="utf-8"))
    return found


def _vocabulary(vocabulary: Any) -> Iterator[tuple[str, int]]:
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    else:  # Unigram: pairs of token and score
        yield from ((entry[0], index) for index, entry in enumerate(vocabulary))


def _added(folder: Path) -> Iterator[str]:
    """Tokens that the files beside ``tokenizer.json`` name, as transformers reads them."""
    settings = _settings(folder / "tokenizer_config.json")
    yield from (entry["content"] for entry in (settings.get("added_tokens_decoder") or {}).values())
    if "added_tokens_decoder" not in settings:
        # How older versions wrote them.
        yield from _settings(folder / "added_tokens.json")
        settings = settings | _settings(folder / "special_tokens_map.json")
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    named = [*(settings.get(name) for name in SPECIAL), *(extra.values() if isinstance(extra, dict) else extra)]
    for token in named:
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content:
            yield content


def _settings(path: Path) -> dict[str, Any]:
    return _read(path) if path.is_file() else {}
