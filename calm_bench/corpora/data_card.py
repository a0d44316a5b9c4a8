"""The data card of a corpus and its tokens: where the text is from, what was left out, and what is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus, MixtureSource
from calm_bench.corpora.mixture import shares_of
from calm_bench.corpora.split_files import SPLITS

CARD = "data_card.md"
MARKS = re.compile(r"[\\`*_\[\]<>|]")
"""Characters that mean something in Markdown."""


def corpus_card(config: Corpus, report: Mapping[str, Any], depends_on: Mapping[str, Any]) -> str:
    """Markdown on a written corpus.

    Args:
        report: as :meth:`calm_bench.corpora.write.CorpusReport.as_dict` gives it.
        depends_on: as :func:`calm_bench.corpora.source.corpus_dependencies` gives it.
    """
    members = depends_on["mixture"] if config.mixture else [depends_on]
    return "\n".join(
        [
            "# Data card",
            "",
            *_table(
                ("source", "share of tokens", "revision or content", "licence", "documents", "bytes"),
                _sources(config, report, members),
            ),
            "",
            *_table(
                ("split", "documents", "bytes"),
                ((split, f"{report['documents'][split]:,}", f"{report['bytes'][split]:,}") for split in SPLITS),
            ),
            "",
            "## Left out",
            "",
            *(_left_out(report) if report["skipped"] else ["Nothing."]),
            "",
            "## Settings",
            "",
            *_table(("setting", "value"), _settings(config)),
            "",
            *(_settings_of_each(config) if config.mixture else ()),
            f"SHA-256 over the digests of all documents: `{report['digest']}`",
            "",
        ]
    )


def tokens_card(corpus: Path, report: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The card of the corpus in the folder ``corpus`` and, below it, what became tokens.

    Args:
        report: as :meth:`calm_bench.tokens.shards.TokensReport.as_dict` gives it.
        digests: of the content of each split.
    """
    # A corpus from before there were cards has none.
    card = (corpus / CARD).read_text() if (corpus / CARD).is_file() else "# Data card\n"
    rows = (
        (split, f"{report['tokens'][split]:,}", f"{report['documents'][split]:,}", f"`{digests[split]}`")
        for split in SPLITS
    )
    lines = ["", "## Tokens", "", f"Tokenizer {_plain(report['tokenizer'])}, `{report['tokenizer_digest']}`.", ""]
    lines += _table(("split", "tokens", "documents", "digest"), rows)
    if "mixture" in report:
        taken = (
            (split, f"{number}", f"{one['tokens']:,}", f"{one['available']:,}")
            for split in SPLITS
            for number, one in enumerate(report["mixture"][split])
        )
        lines += ["", *_table(("split", "source", "tokens taken", "tokens there were"), taken)]
    return card + "\n".join([*lines, ""])


def _sources(config: Corpus, report: Mapping[str, Any], depends_on: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    shares = [f"{float(share):.4g}" for share in shares_of(config)] if config.mixture else ["1"]
    counts = report["mixture"] if config.mixture else [report]
    for member, share, count, found in zip(config.members, shares, counts, depends_on, strict=True):
        known = "; ".join(f"{name} {value}" for name, value in found.items() if name not in ("url", "name"))
        documents, num_bytes = sum(count["documents"].values()), sum(count["bytes"].values())
        licence = member.license or "not given"
        yield [_name(member.source), share, _plain(known), _plain(licence), f"{documents:,}", f"{num_bytes:,}"]


def _left_out(report: Mapping[str, Any]) -> list[str]:
    rows = (
        (_plain(reason), f"{count:,}", _plain("; ".join(report["examples"].get(reason, ()))))
        for reason, count in report["skipped"].items()
    )
    return _table(("reason", "documents or files", "the first of them"), rows)


def _settings(config: Corpus) -> Iterator[tuple[str, str]]:
    """Those of the whole corpus."""
    dumped = config.model_dump(mode="json", exclude={"source", "mixture", "markov", "license", "revision"})
    for name, value in dumped.pop("quality", {}).items():
        if value not in (None, [], 0.0, "keep"):
            dumped[f"quality.{name}"] = value
    of_each = MixtureSource.model_fields if config.mixture else ()
    yield from (
        (name, _plain(str(value))) for name, value in dumped.items() if value is not None and name not in of_each
    )


def _settings_of_each(config: Corpus) -> list[str]:
    """Those that each source of a mixture has of its own."""
    shown = MixtureSource.model_fields.keys() - {"source", "weight", "license", "revision"}
    rows = (
        (_name(member.source), name, _plain(str(value)))
        for member in config.mixture
        for name, value in member.model_dump(mode="json", include=shown).items()
        if value is not None
    )
    return [*_table(("source", "setting", "value"), rows), ""]


def _name(source: str) -> str:
    """A source without the folders of the machine it lies on."""
    is_path = "://" not in source and Path(source.removeprefix("hf:")).expanduser().is_absolute()
    return _plain(Path(source).name if is_path else source)


def _plain(text: str) -> str:
    """Text of others as text: nothing in it is a mark of Markdown."""
    return MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]
