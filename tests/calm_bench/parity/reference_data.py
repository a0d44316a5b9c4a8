"""Where the tensors and checkpoints of the reference implementation lie; ``tests/data/golden/README.md`` lists them."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(os.environ.get("CALM_BENCH_GOLDEN") or Path(__file__).parents[2] / "data" / "golden")
"""The project's own copy, or the folder that ``CALM_BENCH_GOLDEN`` names."""
