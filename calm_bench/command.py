"""The command ``calm-bench``.

It starts from this package because ``calm_bench`` is a name of its own: ``pipelines`` may lead to somebody else's
package until :mod:`calm_bench` has looked.
"""

from __future__ import annotations

from importlib import import_module


def main() -> None:
    """Run the command; ``pipelines`` stands on a floor above and is found by name."""
    import_module("pipelines.app.entry").main()
