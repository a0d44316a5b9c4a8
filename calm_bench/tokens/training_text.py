"""The text that is trained on, all of it at hand or a window of it."""

from __future__ import annotations

from pathlib import Path

from calm_bench.config import Training
from calm_bench.tokens.loader import Batches
from calm_bench.tokens.shard_batches import ShardBatches
from calm_bench.tokens.shard_files import ShardFiles
from calm_bench.tokens.stream import TokenStream


class TrainingText:
    """The training split of the tokens in a folder, as ``training.shuffle_shards`` has it read.

    Raises:
        DamagedShard: a file is missing, truncated or changed.
        TokensError: the folder holds no tokens of this format.
    """

    def __init__(self, folder: str | Path, training: Training) -> None:
        self._training = training
        self._text = (
            TokenStream.open(folder, "train") if training.shuffle_shards is None else ShardFiles(folder, "train")
        )

    @property
    def vocab_size(self) -> int:
        return self._text.vocab_size

    @property
    def eos_id(self) -> int:
        return self._text.eos_id

    def batches(self, seed: int) -> Batches | ShardBatches:
        """What the training serves; to be closed in the end.

        Raises:
            TokensError: the text, or every shard of it, is shorter than one sequence.
        """
        training, text = self._training, self._text
        if isinstance(text, TokenStream):
            return Batches(text, training.batch_size, training.sequence_length, seed)
        assert training.shuffle_shards is not None
        return ShardBatches(text, training.batch_size, training.sequence_length, seed, training.shuffle_shards)
