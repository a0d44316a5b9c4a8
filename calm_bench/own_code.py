"""Code of one's own, run as it stands: heads, families, samplers and functions of task files that a user wrote.

Python takes a file's bytecode for its own where second of change and size are the same. A file that a script writes
twice within a second, or whose times an image or a copy made alike, would so run as it was before, under the identity
of what it is now.
"""

from __future__ import annotations

import py_compile
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType

from calm_bench.errors import CalmBenchError, UsageError
from calm_bench.loaded_code import check_loaded
from calm_bench.source_digest import imported_files, own_file


class BrokenCode(UsageError, ImportError):
    """Code of one's own is no Python, or raises an error while it is imported."""


def import_own(module: str) -> ModuleType:
    """The module ``module``, imported from its source as it is now; one that is imported already is what it was then.

    Runs its code: call it only for what the user named and said to trust.

    Raises:
        ImportError: there is no such module, or it raises one.
        BrokenCode: it, or a file of one's own that it imports, raises another error or is no Python; names the line.
        ChangedCode: it, or a file of one's own that it imports, has changed since this process imported it; or another
            module of this name was imported.
    """
    file = own_file(module)
    if file is None:
        return import_module(module)
    check_loaded(imported_files(file))
    refresh_bytecode(file)
    try:
        found = import_module(module)
    except (CalmBenchError, ImportError):
        raise
    except Exception as error:  # the code is anybody's
        raise BrokenCode(f"{own_line(error, file) or file}: {type(error).__name__}: {_without_place(error)}") from error
    # From now on it is known as what it is.
    check_loaded(imported_files(file))
    return found


def own_line(error: Exception, file: Path) -> str | None:
    """``FILE, line N`` in ``file`` or what it imports of one's own, the last that ``error`` came through; None if it
    came through none of it."""
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).is_file():
        return f"{error.filename}, line {error.lineno}"
    own = set(imported_files(file))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve() in own:
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _without_place(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def refresh_bytecode(file: Path) -> None:
    """Make the bytecode of ``file``, and of the files of one's own that it imports, anew where there is some, so that
    Python takes it for that of their content (PEP 552) and not of their time.

    What cannot be compiled or written is left: importing it tells why.
    """
    for found in imported_files(file):
        with suppress(OSError, ValueError, py_compile.PyCompileError):
            if Path(cache_from_source(str(found))).exists():
                py_compile.compile(
                    str(found), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
                )
