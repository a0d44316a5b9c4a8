"""Whether the constants of an imported module are those that its file holds now.

Python keeps no record of what it imported. Two things tell of it: the bytecode that it wrote beside the file, unless
another process has imported the file since; and the values in the module, for constants that are written out and bound
once.
"""

from __future__ import annotations

import ast
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.machinery import SourcelessFileLoader
from inspect import isclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple)
_MISSING: Any = object()
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def differs_from_bytecode(module: ModuleType, written: CodeType) -> bool:
    """Whether the bytecode that Python kept of ``module`` is other than ``written``, the code of its file now.

    False where bytecode would not have been kept: what lies there may be older than the import.
    """
    cached = getattr(getattr(module, "__spec__", None), "cached", None)
    if cached is None or sys.dont_write_bytecode or not os.access(os.path.dirname(cached), os.W_OK):
        return False
    try:
        # Read by Python's own importer, which reads the same file where the module is imported; nothing of it runs.
        return SourcelessFileLoader(module.__name__, cached).get_code(module.__name__) != written
    except (OSError, ValueError, EOFError, TypeError, ImportError):
        return False


def constants_differ(module: ModuleType, source: bytes, functions: Iterable[FunctionType]) -> bool:
    """Whether a constant of ``module``, of a class in it or in the defaults of ``functions`` is another than the one in
    ``source``.

    Counts those that nothing else in the file binds, and whose values cannot change by themselves.
    """
    tree = ast.parse(source)
    values = vars(module)
    if any(_is_other(values.get(name, _MISSING), value) for name, value in _constants(tree, tree.body)):
        return True
    for node in tree.body:
        owner = values.get(node.name) if isinstance(node, ast.ClassDef) else None
        if isinstance(node, ast.ClassDef) and isclass(owner) and owner.__module__ == module.__name__:
            # Metaclasses take some away.
            members = vars(owner)
            constants = [(name, value) for name, value in _constants(node, node.body) if name in members]
            if any(_is_other(members[name], value) for name, value in constants):
                return True
    defaults = dict(_defaults(tree))
    return any(
        _is_other(found, value)
        for function in functions
        for found, value in zip(_defaults_of(function), defaults.get(function.__qualname__, ()), strict=False)
    )


def _constants(scope: ast.AST, body: Iterable[ast.stmt]) -> Iterator[tuple[str, Any]]:
    """Names that a statement of ``body`` binds to a constant, and nothing else in ``scope`` binds."""
    bound = Counter(_bound(scope))
    for statement in body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        value = _value(getattr(statement, "value", None)) if targets else _MISSING
        for target in targets:
            if isinstance(target, ast.Name) and bound[target.id] == 1 and value is not _MISSING:
                yield target.id, value


def _bound(scope: ast.AST) -> Iterator[str]:
    """Names that anything in ``scope`` binds or takes away, once for each place."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            # ``self.width = 3`` leaves the constant of the class as it is.
            if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                yield node.attr
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, _Function | ast.ClassDef):
            yield node.name


def _defaults(scope: ast.AST, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """By qualified name the values of the defaults of functions, of the module or of its classes."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef):
            yield from _defaults(node, f"{prefix}{node.name}.")
        elif isinstance(node, _Function):
            keywords = [default for default in node.args.kw_defaults if default is not None]
            yield f"{prefix}{node.name}", [_value(default) for default in (*node.args.defaults, *keywords)]


def _defaults_of(function: FunctionType) -> list[Any]:
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _value(node: ast.expr | None) -> Any:
    if node is None:
        return _MISSING
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return _MISSING
    return value if _is_plain(value) else _MISSING


def _is_plain(value: Any) -> bool:
    return type(value) in PLAIN and (not isinstance(value, tuple) or all(map(_is_plain, value)))


def _is_other(found: Any, value: Any) -> bool:
    """Whether ``found`` is a constant that differs from ``value``; of what a decorator or a metaclass has made of it
    that cannot be told."""
    if value is _MISSING:
        return False
    if found is _MISSING:
        return True
    # As they are written: 1, 1.0 and True are equal to Python, and so are 0.0 and -0.0; what is no number never is.
    return _is_plain(found) and repr(found) != repr(value)
