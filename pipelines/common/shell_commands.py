"""Commands for a shell of people, in which a password stands as the variable that it is to come from.

A command is kept and shown without the passwords of its addresses. With ``***`` in their place it could be repeated by
nobody; with ``${MLFLOW_TRACKING_URI:?}`` it works as it stands where the variable is set, and says what is missing
elsewhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise
from typing import Any

from pipelines.common.redact import redact

ADDRESSES = {"tracking.uri": "MLFLOW_TRACKING_URI", "execution.optuna_storage": "CALM_BENCH_OPTUNA_STORAGE"}
"""Settings that may be an address with a password, with the variables that are used where they are unset."""
_OPTIONS = {"--uri": "MLFLOW_TRACKING_URI"}
_MASK = "***"


def shell_command(words: Iterable[str]) -> str:
    """``words`` as a shell reads them; addresses with a password, or that have lost it, as the variables of
    :data:`ADDRESSES`, other secrets as ``***``."""
    return " ".join(_word(before, word) for before, word in pairwise(chain([""], words)))


def lost_addresses(settings: Mapping[str, Any]) -> list[str]:
    """``key=value`` for each address in a study's ``settings``, nested as its file is, that has lost its password."""
    found = []
    for path in ADDRESSES:
        section, _, name = path.partition(".")
        part = settings.get(section)
        value = part.get(name) if isinstance(part, Mapping) else None
        if isinstance(value, str) and _MASK in redact(value):
            found.append(f"{path}={redact(value)}")
    return found


def of_mask(command: str) -> str:
    """What to say behind ``command`` where something in it was left out that no variable stands for."""
    return f" ({_MASK} stands for what is secret and kept nowhere)" if _MASK in command else ""


def _word(before: str, word: str) -> str:
    key, equals, value = word.partition("=")
    variable = (ADDRESSES | _OPTIONS).get(key) if equals else _OPTIONS.get(before)
    asked = "" if variable is None else f"${{{variable}:?}}"
    if asked and ((value if equals else word) == asked or _MASK in redact(word)):
        return f'"{key}={asked}"' if equals else f'"{asked}"'
    return shlex.quote(redact(word))
