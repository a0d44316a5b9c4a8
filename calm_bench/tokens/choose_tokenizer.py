"""How a tokenizer is chosen and loaded."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from calm_bench.config import Tokens
from calm_bench.file_signs import why_unreadable
from calm_bench.json_text import parse_json_text
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.tokenizer import DESCRIPTION, Tokenizer, TokenizerError

LOADERS = {
    "bytes": "calm_bench.tokens.byte_tokenizer:ByteTokenizer",
    "bpe": "calm_bench.tokens.bpe:BpeTokenizer",
    "hugging_face": "calm_bench.tokens.hugging_face:HuggingFaceTokenizer",
}


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


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that ``save`` wrote into ``folder``; needs no network.

    Raises:
        TokenizerError: the folder holds none, or one that is not what was saved.
    """
    path = Path(folder) / DESCRIPTION
    try:
        description = parse_json_text(path.read_text())
        module, _, attribute = LOADERS[description["kind"]].partition(":")
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = why_unreadable(path, error)
        raise TokenizerError(f"{folder} holds no tokenizer that this version reads ({path.name}: {wrong})") from error
    loaded: Tokenizer = getattr(import_module(module), attribute).load(folder)
    if loaded.digest != description["digest"]:
        raise TokenizerError(
            f"the tokenizer in {folder} is damaged: its digest is {loaded.digest}, "
            f"but {description['digest']} was saved; write the tokens again"
        )
    return loaded
