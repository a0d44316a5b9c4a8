"""How to write a list where something else stands."""

from __future__ import annotations

import json
import re
import shlex

PLAIN = re.compile(r"(?!(?:true|false|null)$)[^\W\d](?:[\w./:-]*[\w./-])?(?: [\w./-]+)*", re.IGNORECASE)
"""Text that YAML reads as it stands, also in brackets."""


def as_list(path: str, given: object, is_of_text: bool, is_of_mappings: bool) -> str:
    """What to write in place of ``given``, for the end of a message: ``; write [en,de]`` for ``en, de``.

    Args:
        path: of the setting.
        is_of_text: the elements are text, and numbers among them need quotes.
        is_of_mappings: the elements have keys of their own.
    """
    if given is None:
        return "; write [] for none"
    if isinstance(given, dict):
        return "; put it in brackets: [{...}]"
    if is_of_mappings:
        return "; write its elements as [{...}, {...}], each with its own keys"
    shown = str(given).lower() if isinstance(given, bool) else str(given)
    parts = [part for part in map(str.strip, shown.split(",")) if part]
    # Without spaces: a shell would make several words of them.
    written = f"[{','.join(_element(part, is_of_text) for part in parts)}]"
    needs_quotes = any(sign in written for sign in "\"' ")
    on_command_line = f", on the command line {shlex.quote(f'{path}={written}')}" if needs_quotes else ""
    return f"; write {written}{on_command_line}"


def _element(text: str, is_text: bool) -> str:
    # Any other value was read by YAML: a number stays one.
    return json.dumps(text, ensure_ascii=False) if is_text and not PLAIN.fullmatch(text) else text
