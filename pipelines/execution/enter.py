"""The first thing a worker does: import what the driver imports.

Ray puts the folder in which the driver was started before all else on the path of its workers: a user's
``statistics.py`` or ``evals/`` there would replace the standard library's and ours. The function below is sent to
workers as it is, not by the name of its module, since nothing may be imported before it has put that right.
"""

from __future__ import annotations

from typing import Any


def enter(late: list[str], packages: dict[str, str], call: bytes) -> Any:
    """Put the folders ``late`` behind all others on this worker's path, import our packages, and do ``call``.

    Custom heads are found in ``late``: after the standard library, what is installed, and ours.

    Args:
        late: where the driver was started, and the folder of its script.
        packages: where the driver has each of our packages; empty on a cluster, whose nodes have them elsewhere.
        call: a pickled :func:`functools.partial`.
    """
    import os
    import pickle
    import sys
    from importlib.util import module_from_spec, spec_from_file_location

    # Once in each worker: what it imports later may be from ``late``.
    if "pipelines.execution.enter" not in sys.modules:
        if late and os.path.isdir(late[0]):
            # Where the driver's relative paths begin.
            os.chdir(late[0])
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            folder = os.path.dirname(os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file)
            if "." not in name and folder in late and name != "__main__":
                for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                    del sys.modules[loaded]
        sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") not in late] + late
        for name, folder in packages.items():
            file = os.path.join(folder, "__init__.py")
            spec = spec_from_file_location(name, file, submodule_search_locations=[folder])
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        import pipelines.execution.enter  # noqa: F401
    return pickle.loads(call)()
