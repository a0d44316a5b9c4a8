"""From ``corpus.source`` to the plug-in that reads it, and to what enters the identity of a corpus stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, CorpusSource, DigestedSource, PartedSource
from calm_bench.corpora.mixture import shares_of
from calm_bench.fingerprint import identity
from calm_bench.registry import Registry, did_you_mean
from calm_bench.text_config import MIXTURE

CORPORA: Registry[CorpusSource] = Registry(
    "corpora",
    {
        "stdlib": "calm_bench.corpora.stdlib:SOURCE",
        "markov": "calm_bench.corpora.markov:SOURCE",
        "local": "calm_bench.corpora.local:SOURCE",
        "remote": "calm_bench.corpora.remote:SOURCE",
        "hf": "calm_bench.corpora.hugging_face:SOURCE",
    },
    one="corpus source",
)
"""Corpus sources by name; other distributions add theirs through the entry point group ``calm_bench.corpora``."""

HUGGING_FACE_PREFIX = "hf:"
ADDRESS = "://"
NEEDS_ARGUMENT = {
    "local": "give the path itself, as in corpus.source=texts/",
    "remote": "give the address itself, as in corpus.source=s3://bucket/texts",
    "hf": "give a name, as in hf:NAME",
}
SPLIT_FIELDS = ("max_documents", "validation_fraction", "test_fraction", "split_seed")
OF_ALL_DOCUMENTS = {"duplicates", "similarity", "decontaminate_words"}
"""Settings of ``corpus.quality`` that no document is read by."""


def source_name(source: str) -> str:
    """The name in ``CORPORA`` that reads ``corpus.source``: a registered name, ``hf:...``, an address, or a path.

    Raises:
        CorpusError: it is none of them; names the nearest.
    """
    # Before the next: an address may begin with hf:// too.
    if ADDRESS in source:
        return "remote"
    if source.startswith(HUGGING_FACE_PREFIX):
        return "hf"
    names = CORPORA.names()
    if source in NEEDS_ARGUMENT:
        if Path(source).exists():
            return "local"
        raise CorpusError(f"corpus.source={source} says only how to read: {NEEDS_ARGUMENT[source]}")
    if source in names:
        return source
    if source and Path(source).expanduser().exists():
        return "local"
    by_name = [name for name in names if name not in NEEDS_ARGUMENT]
    raise CorpusError(
        f"corpus.source={source} is neither a corpus, an existing file or folder, an address, nor hf:NAME"
        f"{did_you_mean(source, by_name)}"
    )


def find_source(config: Corpus) -> CorpusSource:
    """The plug-in that reads ``config``, which is no mixture."""
    return CORPORA.get(source_name(config.source))


def identity_config(config: Corpus) -> dict[str, Any]:
    """The settings that shape this corpus, as JSON: what another source would need is left out, and so are paths.

    Together with :func:`corpus_dependencies` they determine every written byte.
    """
    if config.mixture:
        members = [_own_settings(member) | {"max_documents": member.max_documents} for member in config.members]
        shares = map(str, shares_of(config))
        mixture = [{"share": share, **member} for share, member in zip(shares, members, strict=True)]
        return {"source": MIXTURE, "mixture": mixture, **_shared_settings(config)}
    return {**_own_settings(config), **_shared_settings(config)}


def _own_settings(config: Corpus) -> dict[str, Any]:
    name = source_name(config.source)
    dumped = config.model_dump(mode="json")
    return {"source": name, **{field: dumped[field] for field in CORPORA.get(name).fields}}


def _shared_settings(config: Corpus) -> dict[str, Any]:
    dumped = config.model_dump(mode="json")
    # A limit that is not set shapes nothing.
    limit = {} if config.max_document_bytes is None else {"max_document_bytes": config.max_document_bytes}
    quality = {"quality": dumped["quality"]} if "quality" in dumped else {}
    return {**{field: dumped[field] for field in SPLIT_FIELDS}, **limit, **quality}


def part_key(config: Corpus, part: Any) -> str | None:
    """An identity of what a part of the source of ``config``, which is no mixture, becomes without a limit: the same in
    every corpus, whatever other parts it has and wherever it lies. None of a part that nobody would know again.

    Raises:
        CorpusError: it cannot be read.
    """
    source = find_source(config)
    digest = source.part_digest(config, part) if isinstance(source, DigestedSource) else None
    if digest is None:
        return None
    settings = _own_settings(config) | _shared_settings(config)
    settings |= {"max_documents": None, "quality": config.quality.model_dump(mode="json", exclude=OF_ALL_DOCUMENTS)}
    return identity({"settings": settings, "part": digest, "code": corpus_code(config)})


def corpus_dependencies(config: Corpus) -> dict[str, Any]:
    """What the content depends on beyond :func:`identity_config`: content digest, Python version, or revision.

    Raises:
        CorpusError: the source cannot be read or is not pinned.
    """
    if config.mixture:
        return {"mixture": [find_source(member).dependencies(member) for member in config.members]}
    return find_source(config).dependencies(config)


def corpus_code(config: Corpus) -> list[str]:
    """Digests of the code of sources from other distributions: the revisions of stages do not stand for it."""
    digests = (CORPORA.code_digest(source_name(member.source)) for member in config.members)
    return [digest for digest in digests if digest is not None]


def divisible_bytes(config: Corpus) -> int:
    """Bytes of the input of sources that are read in parts; 0 of one that a single process reads.

    Raises:
        CorpusError: the source cannot be read.
    """
    sources = ((find_source(member), member) for member in config.members)
    return sum(source.num_bytes(member) for source, member in sources if isinstance(source, PartedSource))
