"""Whether any record has the field that is to hold the text, and what to write where another is meant."""

from __future__ import annotations

import json
import re
import shlex

from calm_bench.corpora.base import CorpusError, Skipped
from calm_bench.registry import did_you_mean, nearest

_PLAIN = re.compile(r"(?!(?:true|false|null)$)[^\W\d]([\w .-]*[\w.-])?", re.IGNORECASE)
"""Names that YAML reads as they stand: no spaces around them, no signs, numbers or words of its own."""


def check_field(field: str, skipped: Skipped, source: str) -> None:
    """Once all records of ``source`` have been read.

    Raises:
        CorpusError: there were records but none had ``field``; names the nearest one that they have, and how to write
            it.
    """
    if not skipped.other_fields or skipped.has_field:
        return
    known = list(skipped.other_fields)
    near = nearest(field, known)
    spelling = "" if near is None or _PLAIN.fullmatch(near) else _spelling(near)
    raise CorpusError(
        f"no record of {source} has the field {field!r} (corpus.text_field){did_you_mean(field, known)}{spelling}"
    )


def _spelling(name: str) -> str:
    quoted = json.dumps(name, ensure_ascii=False)
    option = shlex.quote(f"corpus.text_field={quoted}")
    return f" It needs quotes: text_field: {quoted} in a file, {option} on the command line"
