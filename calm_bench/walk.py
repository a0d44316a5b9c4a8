"""All files below a folder, those behind symbolic links to folders too: people put large data on another disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def _pass_over(error: OSError) -> None:
    """A folder that cannot be listed has no files for those who do not ask."""


def files_below(
    root: Path, hidden: bool = True, dangling: bool = False, on_error: Callable[[OSError], object] = _pass_over
) -> list[Path]:
    """The files below ``root`` by their paths through it, sorted by relative path. A folder that a link leads back to
    from inside of it is not entered again.

    Args:
        hidden: whether files and folders whose names begin with a dot count.
        dangling: whether links that lead nowhere count as files.
        on_error: told of folders that cannot be listed; it may raise.
    """
    walked = _walk(root, (), hidden, on_error)
    found = (path for path in walked if path.is_file() or (dangling and path.is_symlink() and not path.exists()))
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def others_below(root: Path, hidden: bool = True) -> list[Path]:
    """What is neither file nor folder nor a link that leads nowhere: pipes, sockets, devices, on which reading would
    wait."""
    return [path for path in _walk(root, (), hidden, _pass_over) if path.exists() and not path.is_file()]


def _walk(
    folder: Path, above: tuple[tuple[int, int], ...], hidden: bool, on_error: Callable[[OSError], object]
) -> Iterator[Path]:
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    except OSError as error:
        on_error(error)
        return
    for entry in found:
        path = folder / entry.name
        if path.is_dir():
            yield from _walk(path, (*above, here), hidden, on_error)
        else:
            yield path
