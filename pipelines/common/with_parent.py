"""For processes of multiprocessing: to end when the one that started them has, however that ended.

Python ends them where their starter ends by itself. Killed, it leaves those behind that wait for work.
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Let this process end with its parent from now on; does nothing where it is nobody's."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
