"""The command ``calm-bench``.

It starts from this package because ``calm_bench`` is a name of its own: ``pipelines`` may lead to somebody else's
package until :mod:`calm_bench` has looked.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module


def main() -> None:
    """Run the command; ``pipelines`` stands on a floor above and is found by name."""
    _read_names_as_utf8()
    import_module("pipelines.app.entry").main()


def _read_names_as_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale knows no names of files but ASCII ones.

    Settings, records and file names are UTF-8 whatever the locale is. What the screen can bear stays as it was, and
    processes that this one starts read names alike.
    """
    if sys.getfilesystemencoding().lower() == "utf-8":
        return
    screen = f"{sys.stdout.encoding}:{sys.stdout.errors}" if sys.stdout is not None else "ascii:surrogateescape"
    environment = {"PYTHONIOENCODING": screen, **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)
