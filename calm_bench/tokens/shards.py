"""Tokens written: Arrow shards of fixed size, where documents end, and a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from calm_bench.config import Tokens
from calm_bench.corpora import SPLITS, Split
from calm_bench.corpora.mixture import WrittenMixture, read_mixture
from calm_bench.kept_folders import make_folder
from calm_bench.published_parts import RECORD, PartMapper, in_this_process, link, remove_unfinished_parts
from calm_bench.tokens.earlier_ids import folders_of, write_index
from calm_bench.tokens.manifest import FORMAT, MANIFEST
from calm_bench.tokens.pack import ShardFound, Taken, listed, shards_of, take, write_ends, write_shard
from calm_bench.tokens.token_part import TokenPartFound, make_tokenizer, token_parts, write_token_part


@dataclass(frozen=True)
class TokensReport:
    """What was written."""

    tokenizer: str
    tokenizer_digest: str
    vocab_size: int
    eos_id: int
    dtype: str
    tokens: dict[str, int]
    """Tokens by split, with one EOS per document."""
    documents: dict[str, int]
    bytes_per_token: dict[str, float | None]
    """UTF-8 bytes of text per token by split, EOS not counted; None for an empty split."""
    shards: dict[str, int]
    mixture: dict[str, list[dict[str, Any]]] | None = None
    """By split, of each source of a mixture: the tokens that were taken, and those that there were."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON; what does not apply to a corpus of one source is left out."""
        found = asdict(self)
        if self.mixture is None:
            del found["mixture"]
        return found


def write_tokens(
    config: Tokens,
    corpus_folder: str | Path,
    folder: str | Path,
    map_parts: PartMapper = in_this_process,
    earlier: Iterable[str | Path] = (),
) -> TokensReport:
    """Tokenise the corpus in ``corpus_folder`` into ``folder``.

    Writes ``tokenizer/``, ``<split>/shard-00000.arrow`` and so on (column ``tokens``, uint16 or uint32, one record
    batch, ``config.shard_tokens`` tokens each, the last fewer), ``<split>/documents.arrow`` (column ``end``) and, last,
    ``manifest.json``. One EOS follows each document. Parts and shards that an earlier attempt published in ``folder``
    are taken from there, and ``parts.json`` tells later tokens which text this one has.

    Args:
        map_parts: who makes parts and shards; the result is the same whoever does.
        earlier: folders of finished tokens, of which ids of equal text are taken instead of being encoded again.

    Raises:
        TokenizerError: the tokenizer cannot be built.
        CorpusError: the corpus cannot be read.
    """
    corpus_folder, folder = Path(corpus_folder), Path(folder)
    make_folder(folder)
    remove_unfinished_parts(folder)
    [tokenizer] = map_parts(partial(make_tokenizer, config, corpus_folder), [folder])
    _copy(tokenizer.folder, folder / "tokenizer")
    work = partial(write_token_part, tokenizer, folder, folders_of(tokenizer.digest, map(Path, earlier)))
    # The largest first, so that in the end no worker waits long for the others.
    largest_first = sorted(token_parts(corpus_folder), key=lambda part: part.start - part.stop)
    parts = list(map_parts(work, largest_first))
    parts.sort(key=lambda found: found.part.index)
    mixture = read_mixture(corpus_folder)
    by_split = {split: take([found for found in parts if found.part.split == split], mixture) for split in SPLITS}
    wanted = [shard for split in SPLITS for shard in shards_of(split, by_split[split], config.shard_tokens)]
    shards = list(map_parts(partial(write_shard, tokenizer, folder), wanted))
    shards.sort(key=lambda found: found.shard.index)
    splits = {split: _describe(folder, split, by_split[split], shards) for split in SPLITS}
    write_index(folder, tokenizer.digest, chain.from_iterable(listed(split, by_split[split]) for split in SPLITS))
    manifest = {
        "format": FORMAT,
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest},
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "dtype": tokenizer.dtype.name,
        "splits": splits,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return TokensReport(
        tokenizer=tokenizer.name,
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        dtype=tokenizer.dtype.name,
        tokens={split: described["tokens"] for split, described in splits.items()},
        documents={split: described["documents"] for split, described in splits.items()},
        bytes_per_token={split: _ratio(described) for split, described in splits.items()},
        shards={split: len(described["shards"]) for split, described in splits.items()},
        mixture=None if mixture is None else {split: _by_source(mixture, split, parts, by_split) for split in SPLITS},
    )


def _by_source(
    mixture: WrittenMixture, split: Split, parts: Sequence[TokenPartFound], taken: dict[Split, list[Taken]]
) -> list[dict[str, Any]]:
    """Tokens of each source in one split."""
    return [
        {
            "tokens": sum(one.tokens for one in taken[split] if one.part.part.source == source),
            "available": sum(one.tokens for one in parts if (one.part.split, one.part.source) == (split, source)),
        }
        for source in range(len(mixture.shares))
    ]


def _copy(published: Path, folder: Path) -> None:
    """The files of the tokenizer, which is published as a part, under the name that readers know."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(published, folder, ignore=shutil.ignore_patterns(RECORD))


def _describe(folder: Path, split: Split, parts: Sequence[Taken], shards: Sequence[ShardFound]) -> dict[str, Any]:
    """Give the shards of a split their names, write where its documents end, and describe it for the manifest."""
    shutil.rmtree(folder / split, ignore_errors=True)
    mine = [found for found in shards if found.shard.split == split]
    for found in mine:
        link(found.path, folder / split / found.shard.name)
    files = [found.described for found in mine]
    documents_file = write_ends(folder, split, parts)
    hashes = [file["sha256"] for file in [*files, documents_file]]
    return {
        "tokens": sum(found.tokens for found in parts),
        "documents": documents_file["rows"],
        "bytes": sum(found.bytes for found in parts),
        "digest": hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "shards": files,
        "documents_file": documents_file,
    }


def _ratio(described: dict[str, Any]) -> float | None:
    plain = described["tokens"] - described["documents"]
    return described["bytes"] / plain if plain else None
