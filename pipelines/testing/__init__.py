"""The conformance suite for kinds of stages that others add. It needs pytest, which nothing else here imports.

:mod:`pipelines.testing.stage_conformance` has the class to inherit from in a test of one's own.
"""

from __future__ import annotations

import pytest

# Before anybody imports it: without it a failed assertion of the suite would not show its values.
pytest.register_assert_rewrite("pipelines.testing.stage_conformance")
