"""Private parts of other packages are used in the files that the maintainers' page names, and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("calm_bench", "evals", "pipelines")
DOCUMENTED = {"_exit"}
"""Of the standard library: an underscore by tradition."""


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED | {"_"}


def trees() -> dict[Path, ast.Module]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def own_names(tree: ast.Module) -> Iterator[str]:
    """What a file defines: functions, classes, variables, and attributes that are set on ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        ):
            yield node.attr


def foreign_private(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Private modules and names that are imported, and private attributes that nobody here defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] not in PACKAGES:
            if any(map(private, node.module.split("."))) or any(private(alias.name) for alias in node.names):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(map(private, alias.name.split("."))))
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield node.attr


def test_the_page_names_every_file_that_uses_a_private_interface() -> None:
    parsed = trees()
    own = {name for tree in parsed.values() for name in own_names(tree)}
    found = {str(path): names for path, tree in parsed.items() if (names := sorted(set(foreign_private(tree, own))))}
    section = PAGE.read_text(encoding="utf-8").partition("## Private interfaces")[2]
    assert section
    table = [line for line in section.splitlines() if line.startswith("| `")]
    first_cells = "\n".join(row.split("|")[1] for row in table)
    named = set(re.findall(r"`((?:calm_bench|evals|pipelines)/[\w/]+\.py)`", first_cells))
    assert found.keys() == named, found
    for row in table:
        for test in re.findall(r"`(tests/[\w/]+\.py)`", row):
            assert (ROOT / test).is_file(), f"{test} is to notice a change"
