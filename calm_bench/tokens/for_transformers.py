"""Our tokenizers as files of transformers, from which ``AutoTokenizer`` gives the same ids without code of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.atomic import write_json
from calm_bench.kept_folders import make_folder
from calm_bench.tokens.byte_letters import byte_letters
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.tokenizer import Tokenizer, TokenizerError

if TYPE_CHECKING:
    import tokenizers

CONFIG_FILE = "tokenizer_config.json"


def save_for_transformers(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``, making it.

    ``AutoTokenizer.from_pretrained(folder)`` then maps text to the ids of ``tokenizer`` and back, and knows its end of
    text. Names of special tokens in a text are text, as they are here; a tokenizer that came from transformers is
    saved as it came, with its own habits in both.

    Raises:
        TokenizerError: a tokenizer of a kind that transformers has no files for.
    """
    from transformers import PreTrainedTokenizerFast

    from calm_bench.tokens.bpe import END_OF_TEXT, BpeTokenizer
    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer

    folder = Path(folder)
    make_folder(folder)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        tokenizer.backend.save_pretrained(str(folder))
        return
    if isinstance(tokenizer, ByteTokenizer):
        backend = byte_backend()
    elif isinstance(tokenizer, BpeTokenizer):
        backend = tokenizer.backend
    else:
        raise TokenizerError(f"transformers has no files for the tokenizer {tokenizer.name}")
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    ).save_pretrained(str(folder))
    # transformers 5 writes a name that earlier versions do not know; both know this one.
    path = folder / CONFIG_FILE
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def byte_backend() -> tokenizers.Tokenizer:
    """:class:`ByteTokenizer` in the terms of ``tokenizers``: a byte-level BPE without merges, then the end of text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from calm_bench.tokens.bpe import END_OF_TEXT

    backend = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(byte_letters())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return backend
