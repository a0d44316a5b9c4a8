"""The stage ``tokens``: the documents of a corpus as token ids, and the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.config import Tokens
from calm_bench.fingerprint import folder_identity
from calm_bench.published_parts import SCRATCH
from pipelines.study.cost import SMALL_FILES_BYTES, STAGE_S, CostContext, StageCost
from pipelines.study.graph import OWN_TOKENIZERS
from pipelines.study.kinds.text_parts import MUCH_TEXT, Text, part_workers, watched_parts
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind

TOKENIZED_BYTES_PER_SECOND = {"bytes": 2.0e8, "bpe": 9.0e5, "hugging face": 2.4e6}
"""Text tokenized per second on one core: ``bpe`` is trained first, the rate of others is that of 32,000 entries
(``bench.text``)."""


def run_tokens(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Write the token ids of the corpus with the tokenizer of ``stage.settings["tokens"]``, and their data card."""
    from calm_bench.corpora.data_card import CARD, tokens_card
    from calm_bench.tokens import ShardFound, TokenPartFound, read_manifest, write_tokens

    tokens = Tokens.model_validate(stage.settings["tokens"])

    def text_of(found: object) -> Text | None:
        # The ids of bytes are read when shards are packed.
        if tokens.tokenizer == "bytes":
            return Text(found.bytes, found.rows) if isinstance(found, ShardFound) else None
        return Text(found.bytes, found.tokens) if isinstance(found, TokenPartFound) else None

    parts = watched_parts(context, folder, text_of)
    report = write_tokens(tokens, inputs["corpus"], folder, parts, context.earlier()).as_dict()
    digests = {split: found["digest"] for split, found in read_manifest(folder)["splits"].items()}
    write_bytes(folder / CARD, tokens_card(inputs["corpus"], report, digests).encode())
    return report


def tokens_changed(stage: Stage) -> str | None:
    """The folder of the tokenizer, where it holds another than that of which the study spoke."""
    folder = Path(stage.settings["tokens"]["tokenizer"]).expanduser()
    if not folder.is_dir() or stage.settings["tokens"]["tokenizer"] in OWN_TOKENIZERS:
        return None
    is_same = folder_identity(folder) == stage.config["tokenizer"]
    return None if is_same else f"the tokenizer in {folder}"


def tokens_in_parts(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the corpus is large."""
    return bool(sum(results["corpus"]["bytes"].values()) > MUCH_TEXT)


def tokens_cost(stage: Stage, context: CostContext) -> StageCost:
    """Seconds by the size of the text and by the tokenizer, where the size is known; it needs no torch."""
    sizes, tokenizer = context.sizes, context.experiment.tokens.tokenizer
    if sizes.num_bytes is None or sizes.num_tokens is None:
        return StageCost(None)
    rate = TOKENIZED_BYTES_PER_SECOND[tokenizer if tokenizer in ("bytes", "bpe") else "hugging face"]
    seconds = STAGE_S + (0.1 + sizes.num_bytes / rate / part_workers(sizes.num_bytes, context))
    ids = sizes.num_tokens * (2 if context.vocab_size <= 2**16 else 4)
    # Until the shards are packed, ids lie on disk by parts too, but for bytes.
    scratch = 0 if tokenizer == "bytes" else ids
    return StageCost(seconds, disk_bytes=ids + SMALL_FILES_BYTES, scratch_bytes=scratch)


TOKENS = StageKind(
    "tokens",
    run_tokens,
    heading="Tokens",
    uses_torch=False,
    uses_device=False,
    changed=tokens_changed,
    in_parts=tokens_in_parts,
    scratch=SCRATCH,
    checked_when_opened=True,
    cost=tokens_cost,
)
