"""The files of a leaderboard in a study's folder: JSON, Markdown, CSV and its picture."""

from __future__ import annotations

import functools
from pathlib import Path

from calm_bench.atomic import write_bytes, write_with
from pipelines.results.leaderboard import Leaderboard


def write_leaderboard(leaderboard: Leaderboard, folder: Path) -> dict[str, Path]:
    """Write ``leaderboard.json``, ``.md``, ``.csv``, ``.png`` and ``.svg`` into ``folder``; suffix -> path.

    Does nothing where they are there with the same rows. An empty leaderboard has no picture.
    """
    from pipelines.common.canvas import write
    from pipelines.report.figure import picture
    from pipelines.report.tables import markdown

    texts = {"json": leaderboard.to_json(), "md": markdown(leaderboard), "csv": leaderboard.to_csv()}
    pictures = ("png", "svg") if leaderboard.groups else ()
    paths = {suffix: folder / f"leaderboard.{suffix}" for suffix in (*texts, *pictures)}
    if all(path.exists() for path in paths.values()) and all(
        paths[suffix].read_text(encoding="utf-8") == text for suffix, text in texts.items()
    ):
        return paths
    if leaderboard.groups:
        with picture(leaderboard) as figure:
            for suffix in pictures:
                write_with(paths[suffix], functools.partial(write, figure, file_format=suffix))
    # The texts come last, so that they never vouch for a picture of other rows.
    for suffix, text in texts.items():
        write_bytes(paths[suffix], text.encode())
    return paths
