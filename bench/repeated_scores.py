"""What copies of training text in held-out text do to scores: BrierLM with the passages that repeat, and without.

    python bench/repeated_scores.py STORE LABEL [LABEL ...] [KEY=VALUE ...]     # of evaluation.*

A scored position is repeated where the n-gram it asks for lies in a passage of at least 64 characters that also stands
in the training text (:mod:`bench.repeated_passages`). The models are scored once, under their own protocol; the rest
is which positions count. Errors are over documents, as on the leaderboard. For corpora whose tokens are bytes.
"""

from __future__ import annotations
