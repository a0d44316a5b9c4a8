"""English text that every Python has: the docstrings of the standard library and the topics of ``pydoc``."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Document, Skipped

LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "lib-dynload", "__pycache__"})
"""Folders whose text is not the library's: tests, installed packages, compiled files."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class StandardLibrary:
    """One document per module (its docstrings in source order), then one per topic of ``pydoc``.

    Sources are parsed, never imported. A docstring or topic that already occurred is left out, so that text which
    modules share cannot lie in the training and the test split at once.
    """

    fields: tuple[str, ...] = ()

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """The Python version, and a digest of the sources: distributions leave out or patch different modules."""
        return {"python": platform.python_version(), "sources": _sources_digest()}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        seen: set[str] = set()
        root = _library()
        for path in _sources(root):
            where = path.relative_to(root).as_posix()
            try:
                docstrings = _docstrings(path)
            except (SyntaxError, ValueError) as error:
                skipped.add("unparsable module", f"{where}:{getattr(error, 'lineno', None) or 1}")
                continue
            fresh: list[str] = []
            for docstring, line in docstrings:
                if docstring in seen:
                    skipped.add("repeated docstring", f"{where}:{line}")
                else:
                    seen.add(docstring)
                    fresh.append(docstring)
            if fresh:
                yield Document("\n\n".join(fresh) + "\n", where)
            elif not docstrings:
                skipped.add("module without docstrings", where)
        for name, text in _topics():
            topic = text.strip()
            if topic in seen:
                skipped.add("repeated topic", f"pydoc topic {name}")
            else:
                seen.add(topic)
                yield Document(topic + "\n", f"pydoc topic {name}")


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources(root: Path) -> list[Path]:
    """The library's modules, sorted by relative path so that the file system's order does not matter."""
    found: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in LEFT_OUT]
        # The _sysconfigdata module is generated for the machine it was built on and holds no prose.
        modules = (name for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata"))
        found += [Path(folder, name) for name in modules]
    if not found:
        raise CorpusError(
            "this Python has no standard library sources to take docstrings from; "
            "use corpus.source=PATH with text of your own, or corpus.source=markov"
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _docstrings(path: Path) -> list[tuple[str, int]]:
    with warnings.catch_warnings():
        # Old modules contain escapes that newer parsers warn about.
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_bytes())
    found: list[tuple[str, int]] = []
    for node in _in_source_order(tree):
        docstring = ast.get_docstring(node)
        if docstring and docstring.strip():
            found.append((docstring.strip(), node.body[0].lineno))
    return found


def _in_source_order(tree: ast.Module) -> Iterator[Documented]:
    """The module and the classes and functions in it, wherever nested; expressions are not walked, for speed."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Documented):
            yield node
        for block in ("finalbody", "orelse", "handlers", "cases", "body"):
            children = getattr(node, block, None)
            # The body of a lambda or of a conditional expression is an expression, not a list of statements.
            if isinstance(children, list):
                waiting.extend(reversed(children))


def _topics() -> list[tuple[str, str]]:
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError:
        # Some minimal distributions leave the topics out; the digest of the sources tells them apart.
        return []
    return sorted(topics.items())


@lru_cache(maxsize=1)
def _sources_digest() -> str:
    root = _library()
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


SOURCE = StandardLibrary()
