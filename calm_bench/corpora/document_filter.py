"""Why a single document is left out: its length, its characters."""

from __future__ import annotations

from calm_bench.config import Quality

TOO_SHORT = "document below quality.min_characters"
TOO_MANY = "document above quality.max_characters"
FEW_LETTERS = "document with too few letters (quality.min_letters)"


def reason_to_leave_out(text: str, quality: Quality) -> str | None:
    """The first reason, in the order of the settings; None where there is none."""
    if quality.min_characters is not None and len(text) < quality.min_characters:
        return TOO_SHORT
    if quality.max_characters is not None and len(text) > quality.max_characters:
        return TOO_MANY
    if quality.min_letters:
        written = "".join(text.split())
        if sum(map(str.isalpha, written)) < quality.min_letters * len(written):
            return FEW_LETTERS
    return None
