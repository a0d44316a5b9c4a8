"""Progress bars of other packages, which would stand among the lines that a command prints."""

from __future__ import annotations

import os

VARIABLE = "TQDM_DISABLE"
"""Read by tqdm when it is imported; lm-eval and datasets draw by it."""


def without_foreign_bars() -> None:
    """Have tqdm draw nothing in this process and in those that it starts, unless the environment says otherwise.

    To be called before anything imports tqdm.
    """
    os.environ.setdefault(VARIABLE, "1")
