"""Pictures are an extra: one that cannot be drawn costs a sentence, never a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def attempt(draw: Callable[[], object], path: Path, warn: Callable[[str], None]) -> bool:
    """Whether ``draw`` wrote the picture ``path``; if it failed, ``warn`` is told why and the study goes on."""
    try:
        draw()
    # Drawing rests on fonts, caches and settings of the machine, which fail in more ways than can be listed.
    except Exception as error:
        warn(f"{path.name} could not be drawn ({type(error).__name__}: {error}); all tables are written")
        return False
    return True
