"""The files of a leaderboard in a study's folder: JSON, Markdown, CSV and its picture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from calm_bench.atomic import write_bytes, write_with
from pipelines.report.pictures import attempt
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.pooling import pooled
from pipelines.store.layout import LEADERBOARD_FILE


def write_leaderboard(leaderboard: Leaderboard, folder: Path, warn: Callable[[str], None] = print) -> dict[str, Path]:
    """Write ``leaderboard.json``, ``.md``, ``.csv``, ``.png`` and ``.svg`` into ``folder``; suffix -> path.

    Does nothing where they are there with the same rows. An empty leaderboard has no picture. Drivers of one study may
    write at the same time: what one has drawn of the same rows no other removes.

    Args:
        warn: told why there is no picture, where drawing fails.
    """
    from pipelines.report.tables import markdown

    texts = {"json": leaderboard.to_json(), "md": markdown(leaderboard), "csv": leaderboard.to_csv()}
    pictures = ("png", "svg") if leaderboard.groups else ()
    paths = {suffix: (folder / LEADERBOARD_FILE).with_suffix(f".{suffix}") for suffix in (*texts, *pictures)}
    if not all(_holds(paths[suffix], text) for suffix, text in texts.items()):
        # Pictures of other rows go first, so that whatever picture is there shows the rows of the tables beside it.
        for suffix in pictures:
            paths[suffix].unlink(missing_ok=True)
        for suffix, text in texts.items():
            write_bytes(paths[suffix], text.encode())
    missing = [paths[suffix] for suffix in pictures if not paths[suffix].exists()]
    drawn = not missing or attempt(lambda: _draw(leaderboard, missing), folder / "leaderboard.png", warn)
    # Not whether they are there now: another driver may be about to draw the same again.
    return {suffix: path for suffix, path in paths.items() if suffix in texts or drawn or path.exists()}


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _draw(leaderboard: Leaderboard, paths: Sequence[Path]) -> None:
    from pipelines.common.canvas import write
    from pipelines.report.figure import picture

    # As the table that the run prints: several seeds of a configuration are one point.
    with picture(Leaderboard(pooled(leaderboard))) as figure:
        for path in paths:
            write_with(path, functools.partial(write, figure, file_format=path.suffix.removeprefix(".")))
