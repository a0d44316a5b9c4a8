"""What a table of measurements says about the machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def machine() -> str:
    """The processor, for the head of a table."""
    import torch

    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}"
