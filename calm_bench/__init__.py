"""What a continuous autoregressive language model is and how it is trained.

Knows no Ray, Optuna, MLflow or lm-eval: :mod:`evals` measures models, :mod:`pipelines` runs experiments.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["__version__"]

__version__ = "0.1.0"


def _refuse_shadowed_siblings(home: Path) -> None:
    """Check that ``evals`` and ``pipelines`` are this project's own.

    Both names are generic. Another distribution of that name, or a folder of that name beside a script, would be
    imported silently in place of ours and fail much later, or measure something else.

    Args:
        home: the folder that holds the three packages.

    Raises:
        ImportError: one of the names leads outside ``home``.
    """
    for name in ("evals", "pipelines"):
        if not (home / name / "__init__.py").exists():
            continue  # calm_bench alone was copied to this machine
        loaded = sys.modules.get(name)
        if loaded is not None:
            origin = getattr(loaded, "__file__", None)
        else:
            spec = find_spec(name)
            if spec is None:
                continue  # not importable from here, so nothing stands in its place
            origin = spec.origin
        found = Path(origin).resolve() if origin else None
        if found != (home / name / "__init__.py").resolve():
            raise ImportError(
                f"the name {name!r} leads to {found or 'a folder without __init__.py'}, not to the package that "
                f"belongs to calm_bench in {home}. Another distribution or a folder of that name comes first on "
                "sys.path: uninstall or rename it, or use a virtual environment of its own for calm-bench",
                name=name,
            )


_refuse_shadowed_siblings(Path(__file__).resolve().parent.parent)
