"""What the package datasets keeps of earlier loads, and would give again where it is no longer what was asked for.

It knows a local file by its time of change, which archives and copies set, and what a function makes of a data set by
the function's name: a file with another content, or a function that was edited, gives the questions of before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from calm_bench.fingerprint import content_digest, identity

FOLDER = "calm-bench"


@contextmanager
def transformed_anew() -> Iterator[None]:
    """Within, what functions make of data sets (``process_docs``) is made anew, whatever is kept of it; no bars are
    shown, which would break the caller's own lines."""
    import datasets

    was_kept, were_hidden = datasets.is_caching_enabled(), datasets.are_progress_bars_disabled()
    datasets.disable_caching()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_kept:
            datasets.enable_caching()
        if not were_hidden:
            datasets.enable_progress_bars()


def prepared_folder(files: Sequence[Path], below: str | None = None) -> Path:
    """The folder in which a data set of local ``files`` is prepared, of this content alone.

    Args:
        below: a folder for caches that was asked for; unset, the one of datasets (``HF_DATASETS_CACHE``).
    """
    import datasets

    content = identity([[str(file), content_digest(file)] for file in files])
    return Path(below or datasets.config.HF_DATASETS_CACHE) / FOLDER / content
