"""The content of Python code of one's own, for the identity of results that rest on it."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import secrets
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from zipimport import ZipImportError, zipimporter

from calm_bench.errors import UsageError
from calm_bench.fingerprint import FileVersion, content_digest, file_version
from calm_bench.loaded_code import ChangedCode, check_loaded
from calm_bench.working_directory import working_directory

OUR_PACKAGES = frozenset({"calm_bench", "evals", "pipelines"})
"""Governed by the revisions of their stages instead."""
MAX_NAME = 255
"""Characters of a path that a string may name; longer ones are texts."""
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
THIS_PROCESS = secrets.token_hex(32)
"""Stands for code that cannot be read: nobody else may take it for their own."""


INTO_A_FILE = (
    "Write the class into a file (in a notebook by a cell that begins with %%writefile my_code.py) and name it as "
    "my_code:NAME"
)


class AmbiguousModule(UsageError, ValueError):
    """A module of one's own is called as an installed one."""


class CodeInNoFile(UsageError, ValueError):
    """Code was typed, or stands in a cell of a notebook."""


def source_digest(file: Path) -> str:
    """SHA-256 over a Python file and the files of one's own that it imports, directly or through others.

    Files beside one of them, or in the working directory, that a string in it names count too: what it reads its
    constants from. Installed packages, the standard library and this project are left out. Names and places of files
    do not enter, except in the statements that import or name them.
    """
    digest = hashlib.sha256()
    for found in imported_files(file):
        digest.update(found.read_bytes())
        digest.update(b"\0")
        for data in _named_files(found):
            digest.update(content_digest(data).encode())
    return digest.hexdigest()


def _named_files(file: Path) -> list[Path]:
    """Files other than Python's that strings in ``file`` name, each once, in the order in which they stand there."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found: dict[Path, None] = {}
    for name in strings:
        if not name or len(name) > MAX_NAME or not name.isprintable() or name.endswith(".py"):
            continue
        for folder in (file.parent, working_directory()):
            path = folder / name
            with suppress(OSError):
                if path.is_file():
                    found[path.resolve()] = None
                    break
    return list(found)


def code_digest(module: str) -> str | None:
    """SHA-256 of the code that the module ``module`` brings: its file and what it imports where they are one's own,
    all Python files of its package where it is installed. ``None`` of this project and the standard library.

    A module that has no file has a digest that holds in this process only.

    Raises:
        ChangedCode, AmbiguousModule: as :func:`own_file`; or this process has imported a file that has changed since.
        CodeInNoFile: ``module`` is ``__main__`` and no script: what a cell defines, the next one may define anew.
    """
    top = module.partition(".")[0]
    if top in OUR_PACKAGES or (top in sys.stdlib_module_names and top != "__main__"):
        return None
    file = own_file(module)
    if file is not None:
        check_loaded(imported_files(file))
        return source_digest(file)
    if module == "__main__":
        raise CodeInNoFile(
            "__main__ is a notebook's cells, or what was typed, and lies in no file: neither workers nor later runs "
            f"could tell its code from what it was before. {INTO_A_FILE}"
        )
    try:
        found = find_spec(top)
    except (ImportError, ValueError):
        found = None
    files: list[Path] = []
    if found is not None:
        for folder in found.submodule_search_locations or ():
            files += sorted(Path(folder).rglob("*.py"))
        if not files and found.origin is not None:
            files = [Path(found.origin)]
    return _digest_of(tuple((path, file_version(path.stat())) for path in files)) if files else THIS_PROCESS


@lru_cache(maxsize=64)
def _digest_of(files: tuple[tuple[Path, FileVersion], ...]) -> str:
    digest = hashlib.sha256()
    for path, _ in files:
        digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()


def own_file(module: str) -> Path | None:
    """The file of ``module`` where it is one's own, or its archive, as this process imports or has imported it; None
    of an installed one.

    Raises:
        ChangedCode: it has imported another module of this name than it would find now.
        AmbiguousModule: as :func:`module_file`.
    """
    written = getattr(sys.modules.get(module), "__file__", None)
    loaded = Path(written).resolve() if isinstance(written, str) and os.path.isfile(written) else None
    # A script is whatever was started, and nobody finds it by that name.
    file = None if module == "__main__" else module_file(module, working_directory())
    if file is not None and loaded is not None and file != loaded:
        raise ChangedCode(
            f"{module} was imported from {loaded} by this process, and {file} comes first now: begin anew where it is "
            "the one that is meant (in a notebook restart the kernel), or give one of the two another name"
        )
    return file if loaded is None or _is_installed(loaded) else loaded


def imported_files(file: Path) -> list[Path]:
    """``file`` and the files of one's own that it imports, each once, in the order in which they are met; with those
    that Python runs before it, the ``__init__.py`` of the packages that they lie in."""
    found: dict[Path, None] = {}
    waiting = [file.resolve()]
    while waiting:
        now = waiting.pop(0)
        if now not in found:
            found[now] = None
            waiting += _packages_of(now)
            for name, level in _imports(now):
                # Two dots are the folder above.
                folder = now.parents[min(max(level - 1, 0), len(now.parents) - 1)]
                named = file_beside(name, folder) if level else module_file(name, folder)
                waiting += [] if named is None else [named]
    return list(found)


def _packages_of(file: Path) -> Iterator[Path]:
    folder = file.parent
    while os.path.isfile(begun := folder / "__init__.py"):
        yield begun
        folder = folder.parent


def module_file(name: str, folder: Path) -> Path | None:
    """The file of the module ``name`` where it is one's own, or the archive that holds it: the one that Python finds
    first on ``sys.path``, or else one in ``folder``, which whoever imports it may put there.

    Raises:
        AmbiguousModule: an installed module has its name.
    """
    if name.partition(".")[0] in OUR_PACKAGES | set(sys.stdlib_module_names):
        return None
    for entry in sys.path:
        root = (working_directory() / entry).resolve()
        found = root if _is_in_archive(name, root) else file_beside(name, root)
        if found is not None:
            return None if _is_installed(root) else _unambiguous(name, found)
    return file_beside(name, folder)


def _unambiguous(name: str, file: Path) -> Path:
    """``file``, unless processes that look in its folder last, as workers do, would import another."""
    top = name.partition(".")[0]
    for entry in sys.path:
        root = working_directory() / entry
        if _is_installed(root.resolve()) and (other := file_beside(top, root)) is not None:
            raise AmbiguousModule(
                f"{top} is {file} here, and the installed {other} in workers, which look there first: give your module "
                "another name, or uninstall the other"
            )
    return file


def _is_in_archive(name: str, archive: Path) -> bool:
    package, _, last = name.rpartition(".")
    if not os.path.isfile(archive):
        return False
    try:
        return zipimporter(str(archive / package.replace(".", "/"))).find_spec(last) is not None
    except ZipImportError:
        return False


def file_beside(name: str, folder: Path) -> Path | None:
    """The file of the module ``name`` in ``folder``, whatever it is called: where relative imports look, and lm-eval
    for the functions of a task."""
    parts = name.split(".")
    # As Python itself, which passes over a folder on its path that may not be searched.
    for candidate in (folder.joinpath(*parts, "__init__.py"), folder.joinpath(*parts[:-1], f"{parts[-1]}.py")):
        if os.path.isfile(candidate):
            return candidate.resolve()
    return None


def own_roots() -> list[str]:
    """Where this process finds modules that are not installed, in the order in which it looks: folders and archives on
    ``sys.path``, and folders that it has imported some from and looks in no more."""
    found = {os.path.abspath(working_directory() / entry): None for entry in sys.path}
    # A copy: other threads import meanwhile.
    for name, module in sys.modules.copy().items():
        file = getattr(module, "__file__", None)
        parts = name.split(".")
        if isinstance(file, str) and os.path.isabs(file) and name != "__main__":
            path = Path(file)
            module_parts = path.with_suffix("").parts if path.name != "__init__.py" else path.parent.parts
            if list(module_parts[-len(parts) :]) == parts:
                found.setdefault(str(Path(*module_parts[: -len(parts)])))
    return [root for root in found if os.path.exists(root) and not _is_installed(Path(root).resolve())]


def _imports(file: Path) -> Iterator[tuple[str, int]]:
    """Names of imported modules with the dots before them; of ``from a import b`` both ``a`` and ``a.b``.

    A string counts where it names a module to be imported: ``module:NAME``, or what ``import_module`` is given.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module:
                yield module, node.level
            yield from ((f"{module}.{alias.name}".lstrip("."), node.level) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _TARGET.fullmatch(node.value):
            yield node.value.partition(":")[0], 0
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            given = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((name.lstrip("."), len(name) - len(name.lstrip("."))) for name in map(str, given))


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def _is_installed(path: Path) -> bool:
    # Also those of another environment or of the user, which are on the path of this one.
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    return any(path == folder or folder in path.parents for folder in _installed())
