"""Files of code of one's own that this process has imported, and has not imported again since they changed.

Identities are made of files. A process that lives on while its user edits them, as that of a notebook, would run what
it imported, and its results would stand for what is written now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from inspect import isclass, isfunction
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from calm_bench.errors import UsageError
from calm_bench.fingerprint import content_digest
from calm_bench.loaded_constants import constants_differ, differs_from_bytecode

_LM_EVALS_TIME = "__mtime__"
"""Of modules that lm-eval imports for task files: the time of change at which it did; at another it imports anew."""
_imported: dict[tuple[Path, str], tuple[ModuleSpec | None, str]] = {}
"""By file and name of the module: how it was imported, and the content of the file when that was first seen."""


class ChangedCode(UsageError, ValueError):
    """Code was changed after this process had imported it."""

    input_explains = False


def check_loaded(files: Iterable[Path]) -> None:
    """Look whether modules of ``files`` that this process has imported are what the files hold.

    Raises:
        ChangedCode: one is not; names it.
    """
    for file, name, module in _modules_of(files):
        if _has_changed(file, name, module):
            raise ChangedCode(
                f"{file} has changed since this process imported it, and what would run is what it was: begin anew "
                "(in a notebook restart the kernel)"
            )


def _modules_of(files: Iterable[Path]) -> Iterator[tuple[Path, str, ModuleType]]:
    """Those of ``files`` that are imported, each with the name and the module.

    Thousands of modules are loaded, and most packages' files are called alike: one look at each, at what the system
    has there and not at its path, costs milliseconds.
    """
    wanted: dict[tuple[int, int] | None, Path] = {_place(str(file)): file for file in files}
    wanted.pop(None, None)
    names = {file.name for file in wanted.values()}
    # Other threads import meanwhile, also while the items of a dictionary become a list: a copy is made at once.
    for name, module in sys.modules.copy().items():
        loaded = getattr(module, "__file__", None)
        if isinstance(loaded, str) and os.path.basename(loaded) in names:
            file = wanted.get(_place(loaded))
            if file is not None:
                yield file, name, module


def _place(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_changed(file: Path, name: str, module: ModuleType) -> bool:
    now, spec = content_digest(file), getattr(module, "__spec__", None)
    time = getattr(module, _LM_EVALS_TIME, None)
    if time is not None and time != file.stat().st_mtime_ns:
        _imported.pop((file, name), None)
        return False
    known = _imported.get((file, name))
    # Whoever imports it again gives it another specification.
    if known is None or known[0] is not spec:
        if _differs(module, file) and _differs(_whole(name, module), file):
            return True
        _imported[file, name] = (spec, now)
        return False
    return known[1] != now


def _whole(name: str, module: ModuleType) -> ModuleType:
    """``module`` once another thread that is still importing it has done so: until then it lacks what stands below."""
    if name in sys.modules:
        # It may fail there, with whatever the module raises.
        with suppress(Exception):
            import_module(name)
    return module


def _differs(module: ModuleType, file: Path) -> bool:
    """Whether ``module`` is other than what ``file`` holds now, as far as it shows: a function, a constant, or the
    bytecode that was kept. Nothing does where another importer than Python's own may have rewritten what it read, as
    pytest's does."""
    if type(getattr(module, "__loader__", None)) is not SourceFileLoader:
        return False
    source = file.read_bytes()
    try:
        whole = compile(source, str(file), "exec", 0, True)
    except (SyntaxError, ValueError):
        return True
    written = {code.co_qualname: code for code in _codes(whole)}
    own = [function for function in _functions(module) if Path(function.__code__.co_filename).resolve() == file]
    return (
        any(written.get(function.__code__.co_qualname) != function.__code__ for function in own)
        or constants_differ(module, source, own)
        or differs_from_bytecode(module, whole)
    )


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members: Iterable[Any] = vars(value).values() if isclass(value) else [value]
        for member in members:
            function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isfunction(function):
                yield function
