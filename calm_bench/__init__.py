"""Continuous autoregressive language models: what they are and how they are trained; and the Python entrance.

    import calm_bench as cb

    model = cb.load_model("runs/stages/language_model/0123456789abcdef")
    print(model.generate("def main", temperature=0.5))
    print(model.score("my-text.jsonl"))

    result = cb.Study.from_yaml("k-ablation").run()
    result.to_pandas()

Knows no Ray, Optuna, MLflow or lm-eval: :mod:`evals` measures models, :mod:`pipelines` runs experiments. The names of
the entrance live there and are found by name when they are first used, so that a model trains where neither is
installed.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["Model", "Study", "StudyPlan", "StudyResult", "__version__", "load_model", "score"]

COMMAND = "calm-bench"

_ENTRANCE = {
    "Model": "pipelines.app.entrance.model",
    "load_model": "pipelines.app.entrance.model",
    "Study": "pipelines.app.entrance.study",
    "StudyPlan": "pipelines.app.entrance.study",
    "StudyResult": "pipelines.app.entrance.study",
    "score": "evals.any_sampler",
}
"""Name of the entrance -> module that defines it."""

__version__ = "0.1.0"


def _refuse_shadowed_siblings(home: Path) -> None:
    """Check that ``evals`` and ``pipelines`` are this project's own.

    Both names are generic. Another package of that name, installed or beside a script, would be imported silently in
    place of ours and fail much later, or measure something else. A mere folder of that name, which many a project has
    for its results, shadows nothing: it gives way.

    Args:
        home: the folder that holds the three packages.

    Raises:
        ImportError: one of the names leads to another package.
    """
    for name in ("evals", "pipelines"):
        own = home / name / "__init__.py"
        if not own.exists():
            continue  # calm_bench alone was copied to this machine
        found, is_found = _origin(name)
        if found is None and is_found:
            # Python prefers a package anywhere on the path to a folder, but does not look where an editable
            # installation has put ours.
            sys.path.append(str(home))
            sys.modules.pop(name, None)
            found, is_found = _origin(name)
        if is_found and found != own.resolve() and Path(sys.argv[0]).stem == COMMAND and name not in sys.modules:
            # The process is the command's own: nobody else's package has any business in it.
            sys.path.insert(0, str(home))
        elif is_found and found != own.resolve():
            raise ImportError(
                f"the name {name!r} leads to {found}, not to the package that belongs to calm_bench in {home}. Another "
                "package of that name comes first on sys.path: uninstall or rename it, start from another folder, or "
                "use a virtual environment of its own for calm-bench",
                name=name,
            )


def _origin(name: str) -> tuple[Path | None, bool]:
    """The file that importing ``name`` runs, None for a folder without one; and whether it can be imported at all."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        origin = getattr(loaded, "__file__", None)
    else:
        spec = find_spec(name)
        if spec is None:
            return None, False
        origin = spec.origin
    return (Path(origin).resolve() if origin else None), True


def __getattr__(name: str) -> Any:
    if name not in _ENTRANCE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Since the import of this package, another copy of the project may have come first on the path.
    _refuse_shadowed_siblings(_HOME)
    return getattr(import_module(_ENTRANCE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ENTRANCE})


_HOME = Path(__file__).resolve().parent.parent
_refuse_shadowed_siblings(_HOME)
