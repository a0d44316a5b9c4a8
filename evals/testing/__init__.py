"""The conformance suite for scorers that others add. It needs pytest, which nothing else here imports.

:mod:`evals.testing.scorer_conformance` has the class to inherit from in a test of one's own.
"""

from __future__ import annotations

import pytest

# Before anybody imports it: without it a failed assertion of the suite would not show its values.
pytest.register_assert_rewrite("evals.testing.scorer_conformance")
