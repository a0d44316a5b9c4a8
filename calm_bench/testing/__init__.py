"""Conformance suites for what others add to the project. They need pytest, which nothing else here imports.

:mod:`calm_bench.testing.head_conformance` is for heads, :mod:`calm_bench.testing.family_conformance` for model families
and :mod:`calm_bench.testing.corpus_conformance` for corpus sources. A suite is a class to inherit from in a test of
one's own.
"""

from __future__ import annotations

import pytest

# Before anybody imports them: without it a failed assertion of a suite would not show its values.
pytest.register_assert_rewrite(
    "calm_bench.testing.corpus_conformance",
    "calm_bench.testing.family_conformance",
    "calm_bench.testing.head_conformance",
)
