"""What others may know of the text behind a score: its name, without the folders of the machine it lies on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipelines.common.numbers import printable
from pipelines.common.redact import redact

HUB = "hf:"
"""Before the names of data sets of the hub, in ``corpus.source``."""


def corpus_name(source: str) -> str:
    """``corpus.source`` as a name: a data set's on the hub, a file's without its folders, else as it is."""
    name = source.removeprefix(HUB)
    return name if is_of_hub(source) else printable(PurePosixPath(redact(name)).name) or "text"


def is_of_hub(source: str) -> bool:
    """Whether ``corpus.source`` names a data set of the hub, rather than one in a folder."""
    name = source.removeprefix(HUB)
    return source.startswith(HUB) and not name.startswith((".", "/", "~")) and not Path(name).exists()
