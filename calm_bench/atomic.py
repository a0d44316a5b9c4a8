"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from calm_bench.file_time import file_time
from calm_bench.kept_folders import make_folder
from calm_bench.places import making, refuse_device


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, then rename it to ``path``.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    try:
        _write_with(path, write)
    except OSError as error:
        if error.errno is None:
            raise
        # A full disk names no file, others the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        # safetensors tells of the system's errors in words.
        if type(error).__name__ == "SafetensorError" and (told := _OS_ERROR.search(str(error))) is not None:
            raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error
        raise


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def _write_with(path: Path, write: Callable[[Path], object]) -> None:
    refuse_device(path)
    make_folder(path.parent)
    with making(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # Some writers replace the file with one of their own mode; give it what an ordinary new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """Find out whether ``path`` can be written by the functions here, before what is to stand there is made.

    Raises:
        OSError: it cannot; names ``path``.
    """
    folder = next(above for above in path.absolute().parents if above.exists())
    try:
        refuse_device(path)
        with making(path), tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    write_with(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def is_temporary(path: Path) -> bool:
    """Whether ``path`` is named like a file that :func:`write_with` left unfinished when its process was killed."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) is not None and path.is_file()


def remove_unfinished(folder: Path, older_than_s: float = 60.0) -> None:
    """Remove what killed processes left unfinished in ``folder``, whose files are all written in less than that."""
    unfinished = [path for path in folder.iterdir() if is_temporary(path)]
    now = file_time(folder) if unfinished else 0.0
    for path in unfinished:
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > older_than_s:
                path.unlink()
