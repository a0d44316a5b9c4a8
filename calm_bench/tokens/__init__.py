"""Tokens: tokenizers, shards on disk, and batches of packed sequences."""

from __future__ import annotations

from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.choose_tokenizer import build_tokenizer, load_tokenizer
from calm_bench.tokens.loader import Batches, Windows, different_chunks, windows
from calm_bench.tokens.manifest import DamagedShard, read_manifest
from calm_bench.tokens.pack import ShardFound
from calm_bench.tokens.shard_batches import ShardBatches
from calm_bench.tokens.shard_files import ShardFiles
from calm_bench.tokens.shards import TokensReport, write_tokens
from calm_bench.tokens.stream import TokenStream
from calm_bench.tokens.token_part import TokenPartFound
from calm_bench.tokens.tokenizer import Tokenizer, TokenizerError, TokensError
from calm_bench.tokens.training_text import TrainingText

__all__ = [
    "Batches",
    "ByteTokenizer",
    "DamagedShard",
    "ShardBatches",
    "ShardFiles",
    "ShardFound",
    "TokenPartFound",
    "TokenStream",
    "Tokenizer",
    "TokenizerError",
    "TokensError",
    "TokensReport",
    "TrainingText",
    "Windows",
    "build_tokenizer",
    "different_chunks",
    "load_tokenizer",
    "read_manifest",
    "windows",
    "write_tokens",
]
