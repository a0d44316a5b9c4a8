"""The commit that a name on the Hugging Face hub stands for on this machine: a name alone may mean another tomorrow."""

from __future__ import annotations

import re
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
FILES = ("tokenizer.json", "tokenizer_config.json", "config.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files of which a repository with a tokenizer has one."""


def kept_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder in the hub's cache here with the files of ``name`` at ``revision`` (unset: its main branch), called as
    their commit; asks nobody.

    None where nothing of it is kept.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in FILES:
        try:
            found = try_to_load_from_cache(name, file, revision=revision)
        except HFValidationError:
            return None
        # The documented layout is snapshots/COMMIT/FILE.
        if isinstance(found, str) and COMMIT.fullmatch(Path(found).parent.name):
            return Path(found).parent
    return None
