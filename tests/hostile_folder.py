"""A working directory in which users' files are called like modules that others import."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HOSTILE = "raise RuntimeError(f'{__name__} was imported from where the command was started')\n"
SHADOWS = (
    # Those of other systems are looked for here, and found nowhere else. What starts Python has imported some before it
    # has a path.
    *sorted(
        name
        for name in sys.stdlib_module_names - set(sys.builtin_module_names)
        if not name.startswith("_") and name not in ("encodings", "codecs") and find_spec(name) is not None
    ),
    *("numpy", "torch", "psutil", "yaml", "pydantic", "setuptools", "sitecustomize", "usercustomize"),
)
"""Modules of the standard library and of others that users' files are called like."""


def litter(folder: Path) -> Path:
    """Fill ``folder`` with what may lie beside a notebook: files of common names, another checkout."""
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(HOSTILE)
    for name in ("calm_bench", "evals", "pipelines", "mlflow", "uvicorn"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(HOSTILE)
    return folder
