"""Texts from elsewhere made safe to look at: what they contain is seen, and moves nothing around them."""

from __future__ import annotations

import unicodedata

from pipelines.common.redact import redact

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"
# Joiners are part of words in many scripts; the other format characters turn or hide what stands beside them.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Directions that hold to the end of a line, and their ends; letters have directions of their own."""
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"


def sanitize_label(text: str, limit: int | None = None) -> str:
    """``text`` with tabs and line ends kept, other control and direction characters shown as a replacement character,
    and passwords in addresses masked; cut at ``limit`` characters."""
    shown = "".join(character if _is_harmless(character) else REPLACEMENT for character in redact(text))
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + ELLIPSIS


def _is_harmless(character: str) -> bool:
    return character in "\n\t" or character in JOINERS or unicodedata.category(character) not in _UNSEEN


def without_controls(text: str) -> str:
    """``text`` with what would steer a terminal, or turn the rest of a line, shown as a replacement character; ends of
    lines and tabs stay."""
    return "".join(REPLACEMENT if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return (unicodedata.category(character) == "Cc" and character not in "\n\t") or character in _TURNS
